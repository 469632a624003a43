"""Learning-rate schedulers: anything with `step`, called after each epoch or each batch."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from art_lfr.core.arguments import check_choice
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.storage.tensor_files import like_template, to_plain
from art_lfr.training.best import check_metrics

# What the schedulers of torch call their lengths.
LENGTHS = ("total_steps", "T_max", "total_iters", "T_0", "T_mult", "step_size", "milestones")
# Schedulers that are made for batches, unless their length says otherwise.
OF_BATCHES = (torch.optim.lr_scheduler.OneCycleLR, torch.optim.lr_scheduler.CyclicLR)


class Schedule:
    """A scheduler, when it steps, and what it is shown; None does nothing.

    Args:
        scheduler: An object with `step`, or None.
        interval: "epoch" or "batch"; None: what the scheduler's length says, see `settle`.
        metric: What a `ReduceLROnPlateau` is shown, a metric of `history`. None: a robust one.

    Raises TypeError for an object without `step`, ValueError for an unknown interval, or for one
    or a metric that the scheduler cannot have.
    """

    def __init__(
        self, scheduler: Any, interval: str | None = None, metric: str | None = None
    ) -> None:
        if scheduler is not None and not callable(getattr(scheduler, "step", None)):
            raise WrongTypeError(
                f"scheduler is {scheduler!r}; allowed: an object with a method `step`, such as "
                "those of torch.optim.lr_scheduler, or None"
            )
        if interval is not None:
            check_choice("scheduler_interval", interval, ("epoch", "batch"))
        self._plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if self._plateau and interval == "batch":
            raise UsageError(
                "scheduler_interval is 'batch' for ReduceLROnPlateau; allowed: 'epoch', because it "
                "is shown a metric of an epoch"
            )
        if metric is not None and not self._plateau:
            raise UsageError(
                f"scheduler_metric is {metric!r} with a scheduler of type "
                f"{type(scheduler).__name__}; allowed: None, as only ReduceLROnPlateau is shown one"
            )
        if scheduler is not None and not self._plateau:
            try:
                inspect.signature(scheduler.step).bind()
            except TypeError as error:
                raise WrongTypeError(
                    f"scheduler is a {type(scheduler).__name__} whose `step` needs arguments; "
                    "allowed: one that is called as scheduler.step()"
                ) from error
        self.scheduler = scheduler
        self.interval = interval or "epoch"
        self._asked = interval
        self.metric = metric
        self._warmup_epochs = 0.0

    def settle(
        self,
        epochs: int,
        batches: int,
        *,
        resume: bool,
        warmup_epochs: float,
        monitored: tuple[str, ...],
    ) -> None:
        """Choose what the user has left open, for a call of so many epochs and batches in each.

        `resume` says that those which have been done count among them. Without an interval,
        OneCycleLR, CyclicLR and whatever has `total_steps` step by batch, unless the length is that
        of the epochs; others by epoch, unless their length is exactly that of the batches. A length
        that the steps do not reach is warned of. Without a metric, ReduceLROnPlateau gets the loss
        under PGD of the validation data, or the accuracy where its mode is "max"; the loss of
        training without validation data.

        Raises ValueError where the scheduler would be stepped past its end, or its mode and the
        metric go in opposite directions.
        """
        self._warmup_epochs = warmup_epochs
        if self._plateau:
            self._choose_metric(monitored)
            return
        kind, parts = type(self.scheduler).__name__, list(_inside(self.scheduler))
        lengths = [n for part in parts for n in _steps_of(part, anew=resume)]
        of_batches = [s for s in parts if isinstance(s, OF_BATCHES) or hasattr(s, "total_steps")]
        asked, in_all = self._asked, epochs * batches
        if asked is None and batches > 1:
            by_batch = (
                all(getattr(s, "total_steps", None) != epochs for s in of_batches)
                if of_batches
                # In all, not what is left: `fit` may be called again and again.
                else in_all in [n for part in parts for n in _steps_of(part, anew=True)]
            )
            self.interval = "batch" if by_batch else "epoch"
        steps = in_all if self.interval == "batch" else epochs
        longest = max(lengths, default=0)
        if isinstance(self.scheduler, torch.optim.lr_scheduler.OneCycleLR) and steps > longest:
            raise UsageError(
                f"scheduler is a {kind} made for {longest} steps, and would be stepped {steps} "
                f"times, after each {self.interval} of {epochs} epochs with {batches} batches; "
                f"allowed: one with total_steps={steps}, or another scheduler_interval"
            )
        # Who names the interval may call `fit` again, for the rest of the steps.
        told = asked == "batch" or (asked == "epoch" and not of_batches)
        if longest > steps and not told:
            warnings.warn(
                f"scheduler is a {kind} made for {longest} steps, and gets {steps}: one after each "
                f"{self.interval}, of {epochs} epochs with {batches} batches each. Make it for as "
                "many steps, or set scheduler_interval ('epoch' or 'batch').",
                UserWarning,
                stacklevel=8,  # the line that called the trainer
            )

    def _choose_metric(self, monitored: tuple[str, ...]) -> None:
        """The metric of a ReduceLROnPlateau, which must go the way that its mode says."""
        rising = self.scheduler.mode == "max"
        if self.metric is None:
            robust = "validation_robust_accuracy" if rising else "validation_robust_loss"
            self.metric = robust if "validation" in monitored else "loss"
        check_metrics(self.metric, monitored, "scheduler_metric")
        if self.metric.endswith("accuracy") != rising:
            raise UsageError(
                f"scheduler is a ReduceLROnPlateau with mode {self.scheduler.mode!r}, which is "
                f"shown {self.metric!r}; allowed: mode 'max' for an accuracy (scheduler_metric="
                "'train_accuracy' or, with validation_data, 'validation_robust_accuracy'), mode "
                "'min' for all others"
            )

    def after_batch(self) -> None:
        """Step where the interval is a batch."""
        if self.scheduler is not None and self.interval == "batch":
            self.scheduler.step()

    def after_epoch(self, record: Mapping[str, float]) -> None:
        """Step where the interval is an epoch; `ReduceLROnPlateau` is shown its metric.

        But for epochs of the warm-up: they are of smaller eps and lam, and would stay the best.
        """
        if self.scheduler is None or self.interval == "batch":
            return
        if not self._plateau:
            self.scheduler.step()
        elif self.metric is not None and record["epoch"] - 1 >= self._warmup_epochs:
            self.scheduler.step(record[self.metric])

    def check_drives(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise ValueError where the scheduler was made for another optimizer."""
        if getattr(self.scheduler, "optimizer", optimizer) is not optimizer:
            raise UsageError(
                f"scheduler is a {type(self.scheduler).__name__} of another optimizer; allowed: "
                "one made with the classifier's own"
            )

    def check_can_be_saved(self) -> None:
        """Raise ValueError where the scheduler has no state to save or none that is plain."""
        if self.scheduler is None:
            return
        if not hasattr(self.scheduler, "state_dict"):
            raise UsageError(
                f"scheduler is a {type(self.scheduler).__name__} without `state_dict`; allowed "
                "with checkpoint_dir: a scheduler that can be saved"
            )
        self.state()

    def parts(self) -> dict[str, Any]:
        """What a resumed run must find again, as parts of its identity."""
        interval = None if self.scheduler is None else self.interval
        return {
            "scheduler": self.scheduler,
            "scheduler_interval": interval,
            "scheduler_metric": self.metric,
        }

    def state(self) -> dict[str, Any] | None:
        """The scheduler's state for a checkpoint."""
        if self.scheduler is None:
            return None
        plain: dict[str, Any] = to_plain(
            _without_functions(self.scheduler.state_dict()), "scheduler.state_dict()"
        )
        return plain

    def load(self, state: dict[str, Any] | None) -> None:
        """Restore what `state` returned."""
        if self.scheduler is None or state is None:
            return
        self.scheduler.load_state_dict(like_template(state, self.scheduler.state_dict()))


def _inside(scheduler: Any) -> Iterator[Any]:
    """A scheduler and those inside it, of SequentialLR and ChainedScheduler."""
    if scheduler is not None:
        yield scheduler
        for inner in getattr(scheduler, "_schedulers", ()):
            yield from _inside(inner)


def _steps_of(scheduler: Any, *, anew: bool) -> Iterator[int]:
    """The numbers of steps for which a scheduler is made: from now on, or in all where `anew`."""
    done = 0 if anew else max(0, getattr(scheduler, "last_epoch", 0))
    for name in LENGTHS:
        value = getattr(scheduler, name, getattr(scheduler, f"_{name}", None))
        for length in value if isinstance(value, Iterable) else [value]:
            if isinstance(length, int | float) and name != "T_mult":
                yield int(length) - done
    if isinstance(scheduler, torch.optim.lr_scheduler.SequentialLR):
        last = max(_steps_of(scheduler._schedulers[-1], anew=True), default=0)
        yield scheduler._milestones[-1] + last - done


def _without_functions(state: Any) -> Any:
    """A state without its functions (older OneCycleLR keep one): a fresh scheduler has its own."""
    if isinstance(state, dict) and not isinstance(state, Counter):
        return {k: _without_functions(v) for k, v in state.items() if not inspect.isroutine(v)}
    if isinstance(state, list):
        return [_without_functions(item) for item in state]
    return state
