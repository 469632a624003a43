"""Kill AutoAttack at random moments, go on, kill again; compare with a run that was never stopped.

Run by test_state.py in a process of its own, which forks each run after torch has been imported
once. Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pyautoattack
import torch
from pyautoattack import checks
from torch import nn

from art_lfr.autoattack.state import read_run
from art_lfr.autoattack.suite import run_suite


def attack(state: Path | None, output: Path) -> None:
    """One run of many small batches; its result goes to `output`."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )
    x = torch.rand(30, 1, 8, 8)
    with torch.no_grad():
        y = network(x).argmax(dim=1)
    suite = pyautoattack.AutoAttack(network, eps=0.05, seed=0)
    suite.apgd.n_iter = suite.apgd_targeted.n_iter = suite.fab.n_iter = 2
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 2
    suite.square.n_queries = 5
    found = run_suite(suite, x, y, batch_size=3, checks=checks, state_path=state)
    result = {"adversarial": found.adversarial, "labels": found.labels, "robust": found.robust}
    torch.save({**result, "accuracies": found.accuracies}, output)


def forked(state: Path | None, output: Path) -> int:
    """Start a run in a child process; its process id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            attack(state, output)
            status = 0
        finally:
            os._exit(status)
    return child


def wait_for_writes(state: Path, output: Path, count: int, until: float) -> None:
    """Until the state has changed so often: progress, not time, which a busy machine stretches."""
    last, seen = None, -1
    while seen < count and not output.exists() and time.perf_counter() < until:
        now = state.stat().st_mtime_ns if state.exists() else None
        if now != last or seen < 0:
            last, seen = now, seen + 1
        time.sleep(0.0005)


def same(found: Path, expected: Path) -> bool:
    one, other = (torch.load(path, weights_only=True) for path in (found, expected))
    tensors = ("adversarial", "labels", "robust")
    return one["accuracies"] == other["accuracies"] and all(
        torch.equal(one[name], other[name]) for name in tensors
    )


def main(folder: Path, runs: int, seed: int) -> None:
    """Print how often a process was killed, where, and how many runs ended as the undisturbed."""
    torch.set_num_threads(1)
    expected = folder / "undisturbed.pt"
    attack(None, folder / "warm.pt")  # what is imported on first use
    began = time.perf_counter()
    child = forked(None, expected)
    assert os.waitpid(child, 0)[1] == 0
    duration = time.perf_counter() - began
    draw = random.Random(seed)
    kills, identical, positions = 0, 0, []
    for number in range(runs):
        state, output = folder / f"{number}.state", folder / f"{number}.pt"
        for _ in range(3):
            child, began = forked(state, output), time.perf_counter()
            wait_for_writes(state, output, draw.randint(1, 12), until=began + 20 * duration)
            time.sleep(draw.uniform(0, 0.05) * duration)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if output.exists():
                break
            kills += 1
            if state.exists():
                run = read_run(state)
                positions.append(f"{run['done']}.{run['batch']}")
        if not output.exists():
            child = forked(state, output)
            assert os.waitpid(child, 0)[1] == 0
        identical += same(output, expected)
    print(
        json.dumps(
            {
                "runs": runs,
                "kills": kills,
                "identical": identical,
                "positions": positions,
                "seconds": duration,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
