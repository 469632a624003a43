#!/bin/sh
# wheels.sh FOLDER: what the job needs beside torch and NumPy, for CPython 3.12 on Linux. Run it
# where there is a network. FOLDER/base is for all parts, FOLDER/tests for the tests alone: ART, of
# which a few are, asks for scipy and scikit-learn.
set -eu
get() {
  folder=$1
  shift
  python -m pip download --quiet --no-deps --only-binary=:all: --dest "$folder" \
    --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux2014_x86_64 --platform any "$@"
}
get "$1/base" filelock lazy_loader packaging pillow safetensors tabulate tqdm typing_extensions
get "$1/tests" adversarial-robustness-toolbox cloudpickle hypothesis iniconfig joblib narwhals \
  pluggy pygments pytest scikit-learn scipy six sortedcontainers threadpoolctl
du -m "$1"/*
