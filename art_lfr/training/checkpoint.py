"""What a checkpoint holds: all that a training run carries from one epoch to the next."""

from __future__ import annotations

import copy
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.core.precision import loss_scaler
from art_lfr.errors import UsageError
from art_lfr.storage.description import Plain
from art_lfr.storage.files import write_atomically
from art_lfr.storage.identity import seal
from art_lfr.storage.tensor_files import FORMAT, LAST, load_run, to_plain
from art_lfr.training import contents
from art_lfr.training.averaging import (
    WeightAverage,
    copied_state,
    put_state,
    same_state,
    tensors_of,
)
from art_lfr.training.best import BestWeights, is_comparable
from art_lfr.training.history import History
from art_lfr.training.identity import RunIdentity
from art_lfr.training.options import TrainingOptions
from art_lfr.training.scheduling import Schedule
from art_lfr.training.warm_start import EndPoints


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
        self.history = History()
        self.average: WeightAverage | None = None
        self.best: BestWeights | None = None
        self.ends = EndPoints()
        # torch's `GradScaler`, where layers run in float16.
        self.scaler: Any = None
        self.stopped = False
        self.collapse_reported = False
        # Whether the last epoch of training ended with something learnt.
        self.learnt = False
        self._path: Path | None = None
        self._identity: RunIdentity | None = None
        # What the network held at the very beginning, of that which training may leave as it is.
        self._constants: dict[str, Plain] | None = None
        self._interrupted = False
        # The weights to go on from, where the user was handed others (averaged or best ones).
        self._raw: dict[str, Tensor] | None = None
        self._handed: dict[str, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All of it; torch before 2.5 pickles no generator."""
        # A pickled `GradScaler` has lost its numbers.
        scaler = None if self.scaler is None else (self.scaler._device, self.scaler.state_dict())
        return {**vars(self), "generator": self.generator.get_state(), "scaler": scaler}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.generator = torch.Generator()
        self.generator.set_state(state["generator"])
        if state["scaler"] is not None:
            device, numbers = state["scaler"]
            self.scaler = loss_scaler(torch.device(device))
            self.scaler.load_state_dict(numbers)

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
        identity: RunIdentity,
    ) -> None:
        """Start a call of `fit`: go on in memory, resume from a checkpoint, or start fresh.

        Raises ValueError, before anything changes, where the directory holds another run and
        `resume` is False, or where the checkpoint belongs to other settings, data or network.
        """
        path = None if checkpoint_dir is None else checkpoint_dir / LAST
        content = load_run(path) if path is not None and path.exists() else None
        this_run = content is not None and content["run_id"] == self.run_id
        if content is not None and not this_run and not resume:
            raise UsageError(
                f"checkpoint_dir is {str(checkpoint_dir)!r}, which holds a run; allowed: a new "
                "directory, or resume=True to go on with it"
            )
        # This run is in memory, unless its last call was interrupted in the middle of an epoch.
        if content is not None and resume and (not this_run or self._interrupted):
            assert path is not None
            contents.check(content, path, network, optimizer, schedule, identity)
            epoch, first = content["position"]
            if epoch > first + nb_epochs:
                raise UsageError(
                    f"nb_epochs is {nb_epochs}, and the run in checkpoint_dir has {epoch - first} "
                    "behind it; allowed: at least as many"
                )
            identity.check_resumes(content["identity"], content["network"], epoch)
            self._restore(content, path, network, optimizer, schedule)
        else:
            self._go_on(network, identity)
        if self._constants is None:
            self._constants = identity.parts["constants"]
        self._raw = self._handed = None
        self._interrupted = True
        if ema_decay is not None and self.average is None:
            self.average = WeightAverage(network, ema_decay)
        self.last_epoch = self.first_epoch + nb_epochs
        self._path, self._identity = path, identity

    def _go_on(self, network: nn.Module, identity: RunIdentity) -> None:
        """Continue from memory; from the raw weights, if the user kept what he was given."""
        self.first_epoch, self.stopped = self.epoch, False
        if self._identity is not None and not identity.compares_with(self._identity):
            self.best = None
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
        if self._path is None or self._identity is None:
            return
        content = {
            "format": FORMAT,
            "run_id": self.run_id,
            "identity": {**self._identity.parts, "constants": self._constants},
            "position": [self.epoch, self.first_epoch],
            "stopped": self.stopped,
            "collapse_reported": self.collapse_reported,
            "learnt": self.learnt,
            "history": list(self.history),
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": schedule.state(),
            "average": None
            if self.average is None
            else [self.average.decay, self.average.steps, self.average.state],
            "best": None if self.best is None else self.best.to_plain(),
            "ends": self.ends.steps,
            "end_scales": self.ends.scale,
            "loss_scale": None if self.scaler is None else self.scaler.state_dict(),
            "random": self.random,
            "generator": self.generator.get_state(),
        }
        plain = to_plain(content, "checkpoint")
        plain["sha256"] = seal(plain)
        write_atomically(self._path, lambda file: torch.save(plain, file))

    def _restore(
        self,
        content: dict[str, Any],
        path: Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
    ) -> None:
        before = copied_state(network), copy.deepcopy(optimizer.state_dict()), schedule.state()
        try:
            schedule.load(content["scheduler"])
            optimizer.load_state_dict(content["optimizer"])
            network.load_state_dict(content["network"])
        except Exception as error:  # of an optimizer or a scheduler of the user's own
            put_state(network, before[0])
            optimizer.load_state_dict(before[1])
            schedule.load(before[2])
            raise contents.damaged(path, str(error)) from error
        self.run_id = content["run_id"]
        self.epoch, self.first_epoch = content["position"]
        self.stopped = content["stopped"]
        self.collapse_reported, self.learnt = content["collapse_reported"], content["learnt"]
        self.history[:] = content["history"]
        self.ends.steps, self.ends.scale = content["ends"], content["end_scales"]
        if self.scaler is not None:
            self.scaler.load_state_dict(content["loss_scale"])
        self.random = content["random"]
        self.generator.set_state(content["generator"])
        self._constants = content["identity"]["constants"]
        self.best = None if content["best"] is None else BestWeights(**content["best"])
        self.average = None
        if content["average"] is not None:
            decay, steps, state = content["average"]
            self.average = WeightAverage(network, decay)
            self.average.steps = steps
            for name, value in state.items():
                self.average.state[name].copy_(value)
