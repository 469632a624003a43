"""One run trained to its end, epoch by epoch, resumable, with the time that each epoch took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr.comparison.methods import (
    Warmup,
    art_epochs,
    clip_gradients,
    lfr_trainer,
    make_classifier,
    one_cycle,
)
from art_lfr.comparison.plan import Run
from art_lfr.core.arguments import Array
from art_lfr.core.randomness import RandomState, preserved_random_state, seed_global_generators
from art_lfr.errors import TrainingError, UsageError
from art_lfr.storage.checkpoint import load_run, load_safely, to_plain
from art_lfr.storage.files import write_atomically
from art_lfr.storage.records import read_record, write_record
from art_lfr.training.averaging import copied_state, put_state, tensors_of
from art_lfr.training.scheduling import Schedule

CPU = torch.device("cpu")
STATE, TIMES, STOPPED = "epochs.pt", "times.json", "stopped.txt"


class Times:
    """Seconds after each epoch: of one core's work, and by the clock; kept in a file.

    A comparison at equal time uses the seconds of one core: on a shared machine the clock also
    counts the waiting.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / TIMES
        self.epochs: list[dict[str, float]] = []
        if self._path.exists():
            self.epochs = read_record(self._path)["epochs"]
        self._start()

    def _start(self) -> None:
        self._cpu, self._clock = time.process_time(), time.perf_counter()

    def cut(self, epoch: int) -> None:
        """Forget what came after this epoch: it is trained again.

        Raises ValueError where the file ends earlier, because it is not that of the checkpoint.
        """
        self.epochs = [times for times in self.epochs if times["epoch"] <= epoch]
        reached = int(self.epochs[-1]["epoch"]) if self.epochs else 0
        if reached != epoch:
            raise UsageError(
                f"{self._path} reaches epoch {reached} where the training is at {epoch}; allowed: "
                f"the same (delete {self._path.parent} to train again)"
            )
        self._start()

    def tick(self, epoch: int) -> None:
        """An epoch, counted from 1, has ended."""
        before = self.epochs[-1] if self.epochs else {"cpu_seconds": 0.0, "seconds": 0.0}
        self.epochs.append(
            {
                "epoch": epoch,
                "cpu_seconds": before["cpu_seconds"] + time.process_time() - self._cpu,
                "seconds": before["seconds"] + time.perf_counter() - self._clock,
            }
        )
        write_record(self._path, {"epochs": self.epochs})
        self._start()


def train(
    run: Run, make: Callable[[], nn.Module], x: Array, y: Array, classes: int, directory: Path
) -> tuple[PyTorchClassifier, list[dict[str, float]]]:
    """Train the run's network, or what is left of it; the classifier and the times of its epochs.

    `directory` keeps the state after each epoch, and snapshots of the weights where the comparison
    asks for them (`epoch-<n>.pt`). The global random state is left as found. Where LFR's
    trainer stops, the run ends with the weights that the trainer returns, and the reason is in
    `stopped.txt`: a run that diverges is a result of the comparison.
    """
    directory.mkdir(parents=True, exist_ok=True)
    classifier = make_classifier(make(), run, x, classes)
    times = Times(directory)
    with preserved_random_state(CPU):
        if run.settings["kind"] == "lfr":
            _train_lfr(run, classifier, x, y, directory, times)
        else:
            _train_art(run, classifier, make, x, y, directory, times)
    return classifier, times.epochs


def _train_lfr(
    run: Run, classifier: PyTorchClassifier, x: Array, y: Array, directory: Path, times: Times
) -> None:
    trainer = lfr_trainer(run, classifier)
    last = directory / "last.pt"
    times.cut(len(load_run(last)["history"]) if last.exists() else 0)

    def end(record: dict[str, float]) -> None:
        times.tick(int(record["epoch"]))
        _snapshot(run, classifier, int(record["epoch"]), directory)

    try:
        trainer.fit(
            x,
            y,
            batch_size=run.settings["batch_size"],
            nb_epochs=run.settings["epochs"],
            scheduler=one_cycle(run, classifier.optimizer, len(x)),
            scheduler_interval="batch",
            checkpoint_dir=directory,
            resume=True,
            callback=end,
        )
    except TrainingError as error:
        if not times.epochs:
            times.tick(0)
        write_atomically(directory / STOPPED, f"{error}\n")


def _train_art(
    run: Run,
    classifier: PyTorchClassifier,
    make: Callable[[], nn.Module],
    x: Array,
    y: Array,
    directory: Path,
    times: Times,
) -> None:
    optimizer, state = classifier.optimizer, directory / STATE
    schedule = Schedule(one_cycle(run, optimizer, len(x)), "batch")
    # ART's trainers step a scheduler once an epoch, if at all.
    optimizer.register_step_post_hook(lambda *_: schedule.after_batch())
    clip_gradients(run, optimizer)
    seed_global_generators(run.seed)
    train_epochs, attack = art_epochs(run, classifier, make, x, y)
    done, last = 0, int(run.settings["epochs"])
    if state.exists():
        content = load_safely(state)
        done = int(content["epoch"])
        put_state(classifier.model, content["weights"])
        optimizer.load_state_dict(content["optimizer"])
        schedule.load(content["schedule"])
        RandomState.from_plain(content["random"], CPU).restore()
    times.cut(done)
    batches = math.ceil(len(x) / run.settings["batch_size"])
    warmup = Warmup(attack, run.settings.get("warmup", 0.0) * batches, done * batches)
    optimizer.register_step_post_hook(lambda *_: warmup.after_batch())
    # ART's FBF has a learning rate of its own, over the epochs of one call.
    chunk = last if run.settings["kind"] == "fbf" else 1
    while done < last:
        train_epochs(done, chunk)
        done += chunk
        times.tick(done)
        _snapshot(run, classifier, done, directory)
        content = {
            "epoch": done,
            "weights": copied_state(classifier.model),
            "optimizer": to_plain(optimizer.state_dict(), "optimizer"),
            "schedule": schedule.state(),
            "random": RandomState.capture(CPU).to_plain(),
        }
        write_atomically(state, partial(torch.save, content))


def _snapshot(run: Run, classifier: PyTorchClassifier, epoch: int, directory: Path) -> None:
    every = run.comparison.snapshots
    if every is not None and (epoch % every == 0 or epoch == run.settings["epochs"]):
        save_weights(classifier.model.network, directory / f"epoch-{epoch}.pt")


def save_weights(model: nn.Module, path: Path) -> None:
    """A state dict, atomically."""
    weights = {name: tensor.cpu() for name, tensor in tensors_of(model).items()}
    write_atomically(path, partial(torch.save, weights))
