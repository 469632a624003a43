#!/bin/sh
# Runs one GPU job of at most 9 minutes: gpu.sh JOB DATA.npz OUT_DIRECTORY [MINUTES]
# JOB is mnist-paper-cnn or cifar10-preact-resnet-18. It needs torch, NumPy and tqdm (Pillow for JPEG
# archives), neither ART nor any attack library. OUT gets JOB.json and the weights of each method in
# half precision, in files of at most 15 MiB. Judge the weights afterwards where the attacks are:
#     python benchmarks/gpu_job.py join OUT_DIRECTORY/JOB-lfr weights.pt
#     art-lfr evaluate --model preact-resnet-18 --weights weights.pt --attacks autoattack ...
set -eu
here=$(dirname "$0")
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" exec python3 "$here/gpu_job.py" run "$@"
