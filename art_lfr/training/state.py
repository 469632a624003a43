"""All that a training run carries from one epoch to the next, and how it is saved and resumed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.errors import UsageError
from art_lfr.storage.checkpoint import FORMAT, LAST, load_run, to_plain
from art_lfr.storage.files import write_atomically
from art_lfr.training.averaging import (
    WeightAverage,
    copied_state,
    put_state,
    same_state,
    tensors_of,
)
from art_lfr.training.best import BestWeights, is_comparable
from art_lfr.training.options import TrainingOptions
from art_lfr.training.scheduling import Schedule
from art_lfr.training.warm_start import EndPoints

# The part of a run's identity that counts where it is resumed from a directory, not in memory.
MADE_WITH = "optimizer was made with"


class RunState:
    """A run's position, history, random states, averaged and best weights, ends of ascents.

    It lives as long as its trainer: each call of `fit` is a part of the run. `epoch` counts the
    epochs of the run, `first_epoch` and `last_epoch` bound those of the present call.
    """

    def __init__(self, seed: int) -> None:
        self.run_id = uuid.uuid4().hex
        self.generator = torch.Generator().manual_seed(seed)
        self.random: dict[str, Any] | None = None
        self.epoch = self.first_epoch = self.last_epoch = 0
        self.history: list[dict[str, float]] = []
        self.average: WeightAverage | None = None
        self.best: BestWeights | None = None
        self.ends = EndPoints()
        self.stopped = False
        self.collapse_reported = False
        self._path: Path | None = None
        self._identity: dict[str, Any] = {}
        self._interrupted = False
        # The weights to go on from, where the user was handed others (averaged or best ones).
        self._raw: dict[str, Tensor] | None = None
        self._handed: dict[str, Tensor] | None = None

    def begin(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        nb_epochs: int,
        ema_decay: float | None,
        checkpoint_dir: Path | None,
        resume: bool,
        identity: dict[str, Any],
    ) -> None:
        """Start a call of `fit`: go on in memory, resume from a checkpoint, or start fresh.

        Raises ValueError, before anything changes, where the directory holds another run and
        `resume` is False, or where the checkpoint belongs to other settings, data or network.
        """
        path = None if checkpoint_dir is None else checkpoint_dir / LAST
        content = load_run(path) if path is not None and path.exists() else None
        own = content is not None and content["run_id"] == self.run_id
        if content is not None and not own and not resume:
            raise UsageError(
                f"checkpoint_dir is {str(checkpoint_dir)!r}, which holds a run; allowed: a new "
                "directory, or resume=True to go on with it"
            )
        # Its own run is in memory, unless the last call was interrupted in the middle of an epoch.
        restored = content is not None and resume and (not own or self._interrupted)
        if content is not None and restored:
            _check_same_run(content, identity, network)
        if content is not None and restored:
            self._restore(content, network, optimizer, schedule)
        else:
            self._go_on(network, identity)
        self._raw = self._handed = None
        self._interrupted = True
        if ema_decay is not None and self.average is None:
            self.average = WeightAverage(network, ema_decay)
        self.last_epoch = self.first_epoch + nb_epochs
        self._path, self._identity = path, identity

    def _go_on(self, network: nn.Module, identity: Mapping[str, Any]) -> None:
        """Continue from memory; from the raw weights, if the user kept what he was given."""
        self.first_epoch, self.stopped = self.epoch, False
        # Weights of another optimizer can be compared.
        before, now = (
            {k: v for k, v in i.items() if k != MADE_WITH} for i in (self._identity, identity)
        )
        if before and before != now:
            self.best = None  # of other data: not comparable
            self.ends = EndPoints()
        if self._raw is None or self._handed is None:
            return
        if same_state(network, self._handed):
            put_state(network, self._raw)
        else:  # the user has put other weights in: average and best start anew
            self.average = self.best = None

    def end_epoch(
        self, record: dict[str, float], network: nn.Module, options: TrainingOptions
    ) -> bool:
        """Count the epoch, keep the best weights; whether patience has run out."""
        self.epoch += 1
        self.history.append(record)
        if options.best_metric is None or not is_comparable(
            options.best_metric, self.epoch, options.warmup_epochs
        ):
            return False
        weights = self.average.state if self.average is not None else tensors_of(network)
        if self.best is None or self.best.is_beaten_by(record, options.best_metric):
            self.best = BestWeights.of(record, options.best_metric, weights)
        waited = self.epoch - self.best.epoch
        return options.patience is not None and waited >= options.patience

    def hand_over(self, network: nn.Module) -> None:
        """Leave the best weights in the network, or the averaged ones, or the last."""
        self._interrupted = False
        if self.best is None and self.average is None:
            return
        self._raw = copied_state(network)
        if self.best is not None:
            put_state(network, self.best.state)
        elif self.average is not None:
            put_state(network, self.average.state)
        self._handed = copied_state(network)

    def save(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule
    ) -> None:
        """Write the checkpoint, where the run has a directory."""
        if self._path is None:
            return
        content = {
            "format": FORMAT,
            "run_id": self.run_id,
            "identity": self._identity,
            "position": [self.epoch, self.first_epoch],
            "stopped": self.stopped,
            "collapse_reported": self.collapse_reported,
            "history": self.history,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": schedule.state(),
            "average": None
            if self.average is None
            else [self.average.decay, self.average.steps, self.average.state],
            "best": None if self.best is None else self.best.to_plain(),
            "ends": self.ends.points,
            "random": self.random,
            "generator": self.generator.get_state(),
        }
        plain = to_plain(content, "checkpoint")
        write_atomically(self._path, lambda file: torch.save(plain, file))

    def _restore(
        self,
        content: dict[str, Any],
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
    ) -> None:
        schedule.load(content["scheduler"])
        optimizer.load_state_dict(content["optimizer"])
        network.load_state_dict(content["network"])
        self.run_id = content["run_id"]
        self.epoch, self.first_epoch = content["position"]
        self.stopped = content["stopped"]
        self.collapse_reported = content["collapse_reported"]
        self.history[:] = content["history"]
        self.ends.points = content["ends"]
        self.random = content["random"]
        self.generator.set_state(content["generator"])
        self.best = None if content["best"] is None else BestWeights(**content["best"])
        self.average = None
        if content["average"] is not None:
            decay, steps, state = content["average"]
            self.average = WeightAverage(network, decay)
            self.average.steps = steps
            for name, value in state.items():
                self.average.state[name].copy_(value)


def _check_same_run(
    content: Mapping[str, Any], identity: Mapping[str, Any], network: nn.Module
) -> None:
    """Raise ValueError, naming the difference, unless a checkpoint belongs to this run."""
    saved = _flatten(content["identity"])
    for name, value in _flatten(to_plain(identity, "settings")).items():
        if saved.get(name, value) != value:  # an older version may not have kept it
            raise UsageError(
                f"{name} is {value!r}, but the run in checkpoint_dir has {saved[name]!r}; "
                "allowed: the same, or another directory"
            )
    own = {name: tuple(value.shape) for name, value in tensors_of(network).items()}
    theirs = {k: tuple(v.shape) for k, v in content["network"].items() if isinstance(v, Tensor)}
    if own != theirs:
        name = sorted(set(own.items()) ^ set(theirs.items()))[0][0]
        raise UsageError(
            f"classifier has {own.get(name)} as the shape of {name!r}, but the run in "
            f"checkpoint_dir has {theirs.get(name)}; allowed: the same network"
        )


def _flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat.update(_flatten(value) if isinstance(value, Mapping) else {name: value})
    return flat
