"""RobustBench's evaluation with PyPI's packages: the arguments of `robustbench.eval`, and more.

A model of the zoo on a data set that is downloaded, as RobustBench does it:

    python examples/robustbench_eval.py --model_name=Carmon2019Unlabeled --n_ex=100

A model and images of your own, without any download:

    python examples/robustbench_eval.py --architecture=my_package.models:make_network \
        --custom_checkpoint=weights.pt --images=test.npz --model_name=Mine --eps=8/255
"""

import argparse
import importlib
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

import art_lfr.robustbench  # first: without it PyPI's robustbench cannot be imported
from art_lfr.storage.tensor_files import load_safely

# isort: split
import robustbench
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel


def yes_or_no(text):
    """argparse's type=bool takes "False" for true."""
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: True, False")
    return text.lower() in ("true", "1", "yes")


def number(text):
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: 0.03 or 8/255") from None


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model_name", default="Carmon2019Unlabeled", help="name in the zoo, and of the JSON")
    add("--custom_checkpoint", default="", help="weights to load")
    add("--threat_model", default="Linf", choices=[t.value for t in ThreatModel])
    add("--dataset", default="cifar10", choices=[d.value for d in BenchmarkDataset])
    add("--eps", type=number, default=8 / 255)
    add("--n_ex", type=int, default=100, help="number of images")
    add("--batch_size", type=int, default=500)
    add("--data_dir", default="./data", help="where data sets are, or are downloaded to")
    add("--corruptions_data_dir", default="")
    add("--model_dir", default="./models", help="where zoo models are, or are downloaded to")
    add("--seed", type=int, default=0)
    add("--device", default="cuda:0")
    add("--to_disk", type=yes_or_no, default=True, help="write model_info/...json")
    add("--architecture", help="module:function that makes your network")
    add("--images", help=".npz with x (N, C, H, W) in [0, 1] and y (N,)")
    add("--state_path", type=Path, help="go on from this file, and write it after each batch")
    add("--log_path", help="append AutoAttack's lines to this file")
    return parser.parse_args(arguments)


def load_network(args):
    if args.architecture is None:
        return robustbench.load_model(
            args.model_name,
            model_dir=args.model_dir,
            dataset=args.dataset,
            threat_model=args.threat_model,
            custom_checkpoint=args.custom_checkpoint,
        )
    module, _, function = args.architecture.partition(":")
    network = getattr(importlib.import_module(module), function)()
    if args.custom_checkpoint:
        weights = load_safely(Path(args.custom_checkpoint))
        network.load_state_dict(weights.get("state_dict", weights))
    return network.eval()


def main(args):
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    random.seed(args.seed)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"torch sees no GPU: device cpu instead of {args.device}")
        args.device = "cpu"
    network = load_network(args)
    entry = {"to_disk": args.to_disk, "model_name": args.model_name, "log_path": args.log_path}
    if args.images is None:
        robustbench.benchmark(
            network,
            n_examples=args.n_ex,
            dataset=args.dataset,
            threat_model=args.threat_model,
            data_dir=args.data_dir,
            corruptions_data_dir=args.corruptions_data_dir,
            device=torch.device(args.device),
            batch_size=args.batch_size,
            eps=args.eps,
            aa_state_path=args.state_path,
            **entry,
        )
        return
    if args.threat_model not in ("Linf", "L2"):
        raise SystemExit("--images goes with --threat_model=Linf or L2")
    with np.load(args.images, allow_pickle=False) as arrays:
        x, y = arrays["x"][: args.n_ex], arrays["y"][: args.n_ex]
    art_lfr.robustbench.benchmark(
        network,
        x,
        y,
        args.eps,
        args.threat_model,
        args.seed,
        batch_size=args.batch_size,
        device=args.device,
        state_path=args.state_path,
        dataset=args.dataset,
        **entry,
    )


if __name__ == "__main__":
    main(parse_args())
