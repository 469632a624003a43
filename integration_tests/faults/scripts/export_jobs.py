"""The exports that kill_jobs.py kills, and how far one is."""

from __future__ import annotations

import contextlib
import hashlib
import stat
from pathlib import Path

import numpy as np
import torch
from torch import nn

from art_lfr.cli import app
from art_lfr.errors import TrainingError
from art_lfr.evaluation.run import evaluate
from art_lfr.models import paper_cnn


def wide() -> nn.Module:
    """22 MB, which take a moment to write."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 2000), nn.ReLU(), nn.Linear(2000, 2000), nn.ReLU(),
        nn.Linear(2000, 10),
    )  # fmt: skip


def export_weights(directory: Path, output: Path, seed: int) -> None:
    """What `art-lfr train --output` writes, after as little training as there is."""
    directory.mkdir(exist_ok=True)
    images, x = directory.with_suffix(".npz"), np.zeros((20, 1, 28, 28), dtype=np.float32)
    np.savez(images, x_train=x, y_train=np.arange(20) % 10, x_test=x, y_test=np.arange(20) % 10)
    small = ["--model=export_jobs:wide", "--epochs=1", "--max-iter=1", "--eps=0.1"]
    files = [f"--data={images}", f"--output={directory / 'weights.pt'}"]
    with contextlib.suppress(TrainingError):  # nothing can be learnt from equal images
        app(["train", "--force", *small, *files, f"--seed={seed}"], standalone_mode=False)
    end_of_export(directory, output)


def export_examples(directory: Path, output: Path, seed: int) -> None:
    """The adversarial examples that `evaluate` saves, 3 MB of them."""
    directory.mkdir(exist_ok=True)
    x = torch.rand(400, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 5))
    with torch.no_grad():
        y = network(x).argmax(dim=1)
    evaluate(
        network,
        x,
        y,
        eps=0.03,
        attacks=["FGSM", "PGD"],
        seed=seed,
        save_adversarial=directory / "examples.npz",
    )
    end_of_export(directory, output)


def export_entry(directory: Path, output: Path, seed: int) -> None:
    """An entry for RobustBench's leaderboard: four files that belong together."""
    from art_lfr.robustbench import export

    export(
        paper_cnn(seed),
        "One2026Flat",
        "cifar10",
        "Linf",
        directory,
        title=f"{seed}" * 1_000_000,  # so that each of the four takes a moment to write
        authors="A. One",
        venue="N/A",
        link="https://example.org/paper",
        architecture="SmallCNN",
        eps=8 / 255,
        clean_accuracy=0.8,
        robust_accuracy=0.5,
        factory=paper_cnn,
    )
    end_of_export(directory, output)


def end_of_export(directory: Path, output: Path) -> None:
    torch.save({"weights": {}, "history": check_sums(directory)}, output)


def check_sums(directory: Path) -> dict[str, str]:
    """Of each file that is not temporary, by its place in the directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.suffix != ".partial"
    }


def bytes_written(directory: Path) -> int:
    """Of an export, temporary files included, those of an older export not."""
    total = 0
    for path in directory.rglob("*"):
        try:
            found = path.stat()
        except FileNotFoundError:  # a temporary file that was renamed meanwhile
            continue
        if stat.S_ISREG(found.st_mode) and found.st_mtime != OLDER_TIME:
            total += found.st_size
    return total


# The seed of older exports, and the time at which their files are said to have been written.
OLDER_SEED, OLDER_TIME = 2, 1.0
