"""Kill a job at random moments, start it again each time, compare with one that nobody disturbed.

A job goes on from what it keeps, or exports files, which are then written again from the start.
Run by test_kills.py in a process of its own: it forks each job after torch has been imported once,
so that ten kills do not cost ten imports. Prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from export_jobs import (
    OLDER_SEED,
    OLDER_TIME,
    bytes_written,
    check_sums,
    export_entry,
    export_examples,
    export_weights,
)
from torch import nn
from tqdm import tqdm

from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Box
from art_lfr.core.settings import LFRSettings
from art_lfr.data import Compose, RandomCrop, random_flip
from art_lfr.evaluation.run import evaluate
from art_lfr.training.batches import TensorBatches
from art_lfr.training.loop import TrainingLoop
from art_lfr.training.options import TrainingOptions
from art_lfr.training.scheduling import Schedule
from art_lfr.training.step import Objective

EPOCHS = 6


def train(directory: Path, output: Path, init_seed: int) -> None:
    """One run, with all that has a state: dropout, BatchNorm, momentum, schedule, average, ends."""
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
            augment=Compose(RandomCrop(2), random_flip),
            warm_start=True,
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
    history = [
        {k: v for k, v in r.items() if not k.endswith("seconds")} for r in loop.state.history
    ]
    torch.save({"weights": network.state_dict(), "history": history}, output)


def progress_of_training(directory: Path) -> int:
    """The epoch of the checkpoint; -1 without one."""
    last = directory / "last.pt"
    return torch.load(last, weights_only=True)["position"][0] if last.exists() else -1


def judge(directory: Path, output: Path, seed: int) -> None:
    """An evaluation by several attacks that keeps its state in `directory`."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(40, 1, 8, 8, generator=generator), torch.arange(40) % 5
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5))
    with torch.no_grad():
        y = network(x).argmax(dim=1)
    torch.manual_seed(seed)
    found = evaluate(
        network,
        x,
        y,
        eps=0.03,
        attacks=["PGD-40", "PGD", "MI-PGD", "APGD-CE"],
        state_dir=directory,
        seed=3,
        verbose=False,
    ).to_dict()
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in found["rows"]]
    torch.save({"weights": {}, "history": rows}, output)


def progress_of_judging(directory: Path) -> int:
    """How many attacks are finished."""
    return len(list(directory.glob("*.attack.pt")))


class Job(NamedTuple):
    """What it does, how far it is, and what it may leave in its directory."""

    run: Callable[[Path, Path, int], None]
    progress: Callable[[Path], int]
    kept: tuple[str, ...]
    exports: bool = False


ENTRY = ("entry.py", "request.md", "One2026Flat.json", "One2026Flat.pt")
JOBS = {
    "train": Job(train, progress_of_training, ("last.pt", ".lock")),
    "evaluate": Job(judge, progress_of_judging, ("*.attack.pt", "evaluation.json", ".lock")),
    "weights": Job(export_weights, bytes_written, ("weights.pt",), exports=True),
    "examples": Job(export_examples, bytes_written, ("examples.npz",), exports=True),
    "entry": Job(export_entry, bytes_written, ENTRY, exports=True),
}


def forked(job: Callable[..., None], *arguments: object) -> int:
    """Start a job in a child process; its process id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # All share tqdm's own lock; a child that is killed with it would keep it for ever.
            tqdm.set_lock(threading.RLock())
            job(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def finish(child: int) -> bool:
    """Wait for a child; whether it ended well."""
    return os.waitpid(child, 0)[1] == 0


def put_older_export(source: Path, directory: Path) -> dict[str, str]:
    """Copy an older export into the directory; its check sums."""
    shutil.copytree(source, directory)
    for path in directory.rglob("*"):
        os.utime(path, (OLDER_TIME, OLDER_TIME))
    return check_sums(directory)


def wait_until_written(directory: Path, output: Path, target: float) -> None:
    """Until an export has written so many bytes, or has ended."""
    deadline = time.monotonic() + 120
    while bytes_written(directory) < target and not output.exists():
        assert time.monotonic() < deadline, "the export does not get on"


def main(kind: str, folder: Path, kills: int, seed: int) -> None:
    """Print how many kills hit a running job, and after how many it ended identically.

    Positions are what `progress` of the job says; for an export tenths of the bytes, -1 before the
    first. Of exports also how many kills left all new files ("replaced"), some new ones beside old
    or missing ones ("mixed"), or one that is neither the old nor the new ("torn").
    """
    job = JOBS[kind]
    torch.set_num_threads(1)
    # What torch imports on first use is imported here, once, not in every child.
    job.run(folder / "warm", folder / "warm.pt", 0)
    began = time.perf_counter()
    assert finish(forked(job.run, folder / "undisturbed", folder / "undisturbed.pt", 0))
    duration = time.perf_counter() - began
    expected = torch.load(folder / "undisturbed.pt", weights_only=True)
    new, whole = expected["history"], job.progress(folder / "undisturbed")
    if job.exports:
        assert finish(forked(job.run, folder / "older", folder / "older.pt", OLDER_SEED))
        assert not set(check_sums(folder / "older").values()) & set(new.values())
    draw = random.Random(seed)
    hits, identical, positions, leftovers = 0, 0, [], 0
    replaced, mixed, torn = 0, 0, 0
    while hits < kills:
        directory, output = folder / f"run{hits}", folder / f"run{hits}.pt"
        older = {}
        if job.exports and hits % 2 == 1:
            older = put_older_export(folder / "older", directory)
        child = forked(job.run, directory, output, 0)
        if not job.exports:
            time.sleep(draw.uniform(0.02, 0.95) * duration)
        elif hits % 3 == 0:
            time.sleep(draw.uniform(0.02, 0.3) * duration)
        else:  # while it writes, which is a small part of its time
            wait_until_written(directory, output, draw.uniform(1, whole))
            time.sleep(draw.choice([0, 0, draw.uniform(0, 0.02)]))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if output.exists():  # it had ended before: no kill
            shutil.rmtree(directory)
            output.unlink()
            continue
        done = job.progress(directory)
        if job.exports:
            positions.append(10 * done // whole if done else -1)
            found = check_sums(directory)
            are_new = [found.get(name) == new[name] for name in new]
            replaced += all(are_new)
            mixed += any(are_new) and not all(are_new)
            torn += any(found.get(name) not in (older.get(name), new[name]) for name in new)
        else:
            positions.append(done)
        # The process that goes on starts from another seed, which the files must replace; killed
        # before its first checkpoint, a training has only its seed, as an export always has.
        goes_on = not job.exports and done >= 0
        assert finish(forked(job.run, directory, output, 1 if goes_on else 0))
        found = torch.load(output, weights_only=True)
        same = all(torch.equal(v, found["weights"][k]) for k, v in expected["weights"].items())
        identical += same and found["history"] == expected["history"]
        kept = {path for pattern in job.kept for path in directory.rglob(pattern)}
        leftovers += sum(path.is_file() and path not in kept for path in directory.rglob("*"))
        shutil.rmtree(directory)
        hits += 1
    counts = {"kills": hits, "identical": identical, "positions": positions, "leftovers": leftovers}
    if job.exports:
        counts |= {"replaced": replaced, "mixed": mixed, "torn": torn}
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
