"""Kill a training run at random moments, resume each, compare with one that was never stopped.

Run by test_resume.py in a process of its own: it forks each run after torch has been imported
once, so that ten kills do not cost ten imports. Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from art_lfr.batches import TensorBatches
from art_lfr.criterion import Criterion
from art_lfr.geometry import Box
from art_lfr.options import TrainingOptions
from art_lfr.scheduling import Schedule
from art_lfr.settings import LFRSettings
from art_lfr.step import Objective
from art_lfr.training import TrainingLoop

EPOCHS = 6


def train(directory: Path, output: Path, init_seed: int) -> None:
    """One run, with everything that has a state: dropout, BatchNorm, momentum, schedule, EMA."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(120, 1, 8, 8, generator=generator), torch.arange(120) % 5
    torch.manual_seed(init_seed)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
        nn.Linear(216, 5),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=EPOCHS * 3)
    loop = TrainingLoop(
        Objective(network, Criterion(), lambda like: Box.from_bounds((0.0, 1.0), like)),
        network,
        optimizer,
        settings=LFRSettings(eps=0.1, steps=2),
        options=TrainingOptions(
            warmup_epochs=3.0,
            ema_decay=0.9,
            best_metric=("validation_robust_accuracy", "validation_accuracy"),
            monitor_samples=20,
            verbose=False,
        ),
    )
    loop.fit(
        TensorBatches(x, y, 40, torch.device("cpu")),
        EPOCHS,
        validation=(x[:20], y[:20]),
        schedule=Schedule(scheduler, "batch"),
        checkpoint_dir=directory,
        resume=True,
    )
    history = [{k: v for k, v in r.items() if k != "seconds"} for r in loop.state.history]
    torch.save({"weights": network.state_dict(), "history": history}, output)


def forked(*arguments: object) -> int:
    """Start a run in a child process; its process id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(*arguments)  # type: ignore[arg-type]
            status = 0
        finally:
            os._exit(status)
    return child


def finish(child: int) -> bool:
    """Wait for a child; whether it ended well."""
    return os.waitpid(child, 0)[1] == 0


def main(folder: Path, kills: int, seed: int) -> None:
    """Print how many kills hit a running process, and how many resumed runs were identical."""
    torch.set_num_threads(1)
    # What torch imports on first use is imported here, once, not in every child.
    train(folder / "warm", folder / "warm.pt", 0)
    began = time.perf_counter()
    assert finish(forked(folder / "undisturbed", folder / "undisturbed.pt", 0))
    duration = time.perf_counter() - began
    expected = torch.load(folder / "undisturbed.pt", weights_only=True)
    draw = random.Random(seed)
    hits, identical, positions, leftovers = 0, 0, [], 0
    while hits < kills:
        directory, output = folder / f"run{hits}", folder / f"run{hits}.pt"
        child = forked(directory, output, 0)
        time.sleep(draw.uniform(0.02, 0.95) * duration)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if output.exists():  # it had ended before: no kill
            for path in (*directory.iterdir(), output):
                path.unlink()
            continue
        last = directory / "last.pt"
        started = last.exists()
        positions.append(torch.load(last, weights_only=True)["position"][0] if started else -1)
        # The resumed process starts from other weights, which the checkpoint must replace;
        # killed before its first checkpoint, a run has only its seed.
        assert finish(forked(directory, output, 1 if started else 0))
        found = torch.load(output, weights_only=True)
        same = all(torch.equal(v, found["weights"][k]) for k, v in expected["weights"].items())
        identical += same and found["history"] == expected["history"]
        leftovers += len([p for p in directory.iterdir() if p.name != "last.pt"])
        hits += 1
    print(
        json.dumps(
            {"kills": hits, "identical": identical, "epochs": positions, "leftovers": leftovers}
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
