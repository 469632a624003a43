"""What a training run warns of while it goes on, each at most once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from art_lfr.core.settings import LFRSettings
from art_lfr.penalties import LocalFlatness, Penalty
from art_lfr.storage.identity import Identity
from art_lfr.training.checkpoint import RunState
from art_lfr.training.options import TrainingOptions

# Epochs with one class predicted for everything, after which a user is told.
CONSTANT = 3
# How much steeper training samples may be by ten steps than by those of training. On the paper's
# network sound runs had up to 1.5, one that learnt to hide 3 as it began.
HIDING = 3.0
# Of eps: a search that cannot go as far finds next to nothing. One step of the default goes 0.4.
SHORTEST_PATH = 0.25


class Alarms:
    """Says what is wrong with a run and what to change.

    Each stack level counts up to the line that called the trainer.

    Args:
        settings: The objective's.
        penalty: The objective's.
        options: The run's.
        shown: False in all processes but the main one.

    Attributes:
        problem: What is wrong with the network's predictions after the last epoch, or None.
    """

    def __init__(
        self, settings: LFRSettings, penalty: Penalty, options: TrainingOptions, *, shown: bool
    ) -> None:
        self.problem: str | None = None
        self._settings, self._options, self._shown = settings, options, shown
        # Input-gradient regularization seeks no point: what it has is no flatness of the ball.
        self._flattens = isinstance(penalty, LocalFlatness) and penalty.ascends
        self._searches, self._has_lam = penalty.ascends, isinstance(penalty, LocalFlatness)
        self._constant = 0  # epochs with a problem, one after another
        self._hides = 0  # epochs in which slopes are missed, one after another
        self._told_of_start = self._told_of_hiding = self._told_of_nothing = False

    @property
    def advice(self) -> str:
        """What to change, in the order of docs/guide.md."""
        lam, options = self._settings.lam, self._options
        clip = "set" if options.max_grad_norm is None else "lower"
        weight = f"lower lam (now {lam:g}, eps / 2 is usual); " if self._has_lam else ""
        return (
            f"In this order: halve the learning rate; {clip} max_grad_norm (now "
            f"{options.max_grad_norm}); raise warmup_epochs (now {options.warmup_epochs:g}); "
            f"{weight}see that eps (now {self._settings.eps:g}) is in the units of x."
        )

    @property
    def short_path(self) -> str | None:
        """What to warn of where the steps of a search cannot leave its start by much, or None."""
        settings = self._settings
        path = settings.steps * settings.step_size
        if not self._searches or settings.lam == 0 or path >= SHORTEST_PATH * settings.eps:
            return None
        return (
            f"max_iter is {settings.steps} and eps_step {settings.step_size:.3g}: the search goes "
            f"{path:.3g} at the most, of an eps of {settings.eps:.3g}, and finds next to nothing. "
            "Raise one of them."
        )

    def starts_anew(self, reason: str) -> None:
        """No ascent can go on from the epoch before."""
        if self._shown and not self._told_of_start:
            warnings.warn(
                f"each ascent starts anew: {reason}. Or raise max_iter, now "
                f"{self._settings.steps}, or say warm_start=False.",
                UserWarning,
                stacklevel=10,
            )
        self._told_of_start = True

    @staticmethod
    def lost_state(before: Identity, after: Identity) -> None:
        """Something of the user's changes as it is used: no checkpoint keeps that."""
        if moved := before.moved_to(after):
            warnings.warn(
                f"{', '.join(moved[:3])} changes as it is used, which no checkpoint keeps: a "
                "resumed run will not end with the same weights. Draw from the generator that "
                "augment gets, or from torch's global one.",
                RuntimeWarning,
                stacklevel=7,
            )

    def short_training(self, epochs: int) -> None:
        """The run has ended before its eps was full."""
        warmup, settings = self._options.warmup_epochs, self._settings
        if epochs < warmup and settings.eps > 0 and self._shown:
            warnings.warn(
                f"training ends after epoch {epochs}, within the {warmup:g} of warmup_epochs: eps "
                f"has reached {settings.warmed(epochs, warmup).eps:.3g} of {settings.eps:g}. Train "
                "for more epochs, or lower warmup_epochs.",
                UserWarning,
                stacklevel=7,
            )

    def useless(self, record: Mapping[str, float]) -> None:
        """The penalty is exactly 0 although it has a weight: no gradient reaches the input."""
        warm = record["epoch"] >= self._options.warmup_epochs
        if self.problem or not (self._has_lam and warm and self._settings.lam):
            return
        if record["flatness"] == 0 and self._shown and not self._told_of_nothing:
            warnings.warn(
                f"the penalty is exactly 0 throughout epoch {record['epoch']:g}: the network's "
                "gradient in x is 0, and training has no defence. art_lfr.check.check_model looks "
                "for the layer.",
                RuntimeWarning,
                stacklevel=8,
            )
            self._told_of_nothing = True

    def hiding(self, record: Mapping[str, float]) -> None:
        """The few steps of training no longer find the slopes that are there.

        Known where there is validation data: training samples are then measured by ten steps too,
        at the end of the epoch. So in two epochs one after another: in one in which the flatness
        rises fast, the mean over the epoch is far below its end.
        """
        measured, found = record.get("train_subset_flatness", 0.0), record["flatness"]
        warm = record["epoch"] >= self._options.warmup_epochs
        counts = self._flattens and warm and self._settings.lam != 0
        self._hides = self._hides + 1 if counts and measured > HIDING * found else 0
        if self._hides < 2:
            return
        renewal = self._settings.renew_every
        if self._shown and not self._told_of_hiding:
            warnings.warn(
                f"false robustness: in epoch {record['epoch']:g} the ascent of training finds a "
                f"flatness of {found:.3g}, one of ten steps that starts anew {measured:.3g}. Raise "
                f"max_iter (now {self._settings.steps}); "
                + (f"renew_every should be 1 (now {renewal}); " if renewal > 1 else "")
                + "halve the learning rate.",
                RuntimeWarning,
                stacklevel=8,
            )
        self._told_of_hiding = True

    def collapse(self, state: RunState, *, ended: bool) -> None:
        """One class is predicted for everything.

        At the end of a call, or after some epochs in which it was: what has just begun may learn.
        """
        self._constant = self._constant + 1 if self.problem else 0
        told = state.collapse_reported or not (ended or self._constant >= CONSTANT)
        if not self.problem or told:
            return
        state.collapse_reported = True
        if self._shown:
            warnings.warn(
                f"collapse: after epoch {state.epoch} the network {self.problem}. Start again. "
                f"{self.advice}",
                RuntimeWarning,
                stacklevel=7,
            )
