"""Learning-rate schedulers: anything with `step`, called after each epoch or each batch."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

import torch

from art_lfr.core.arguments import check_choice
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.storage.tensor_files import like_template, to_plain


class Schedule:
    """A scheduler and when it steps; None does nothing.

    Raises TypeError for an object without `step`, ValueError for an unknown interval.
    """

    def __init__(self, scheduler: Any, interval: str) -> None:
        if scheduler is not None and not callable(getattr(scheduler, "step", None)):
            raise WrongTypeError(
                f"scheduler is {scheduler!r}; allowed: an object with a method `step`, such as "
                "those of torch.optim.lr_scheduler, or None"
            )
        check_choice("scheduler_interval", interval, ("epoch", "batch"))
        self._plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if self._plateau and interval == "batch":
            raise UsageError(
                "scheduler_interval is 'batch' for ReduceLROnPlateau; allowed: 'epoch', because it "
                "is shown the loss of an epoch"
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
        self.interval = interval

    def after_batch(self) -> None:
        """Step where the interval is a batch."""
        if self.scheduler is not None and self.interval == "batch":
            self.scheduler.step()

    def after_epoch(self, loss: float) -> None:
        """Step where the interval is an epoch; `ReduceLROnPlateau` is shown the loss."""
        if self.scheduler is None or self.interval != "epoch":
            return
        if self._plateau:
            self.scheduler.step(loss)
        else:
            self.scheduler.step()

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
        return {"scheduler": self.scheduler, "scheduler_interval": interval}

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


def _without_functions(state: Any) -> Any:
    """A state without its functions (older OneCycleLR keep one): a fresh scheduler has its own."""
    if isinstance(state, dict) and not isinstance(state, Counter):
        return {k: _without_functions(v) for k, v in state.items() if not inspect.isroutine(v)}
    if isinstance(state, list):
        return [_without_functions(item) for item in state]
    return state
