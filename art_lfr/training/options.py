"""How a run trains, beside the settings of the LFR objective."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from art_lfr.core.arguments import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_seed,
)
from art_lfr.core.names import PRECISIONS
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.storage.files import as_path
from art_lfr.training.best import check_metrics

if TYPE_CHECKING:
    from art_lfr.data.augmentation import Augmentation


# Chosen by benchmarks/stability.
LET_IN = 2


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a run trains, beside the LFR settings. `None` switches a part off.

    Attributes:
        warmup_epochs: eps and lam rise linearly over so many epochs of the run's life, >= 0.
        held_epochs: The minus term of LFR's finite difference is held over so many epochs (as
            "lfr-held" holds it throughout) and let in linearly over twice as many, >= 0.
            None: as many as `warmup_epochs`.
        augment: (batch, generator) -> batch, applied before the ascent.
        max_grad_norm: Clip the gradient to this l2 norm, > 0.
        weight_perturbation: Take the gradient at weights moved up the loss by this part of their
            norm, >= 0 (AWP).
        max_physical_batch_size: Take larger batches in parts of at most so many samples, >= 1
            (one more rather than a part of a single sample).
        ema_decay: Decay of an exponential moving average of the weights, in (0, 1).
        best_metric: Keep the weights of the best epoch by this metric, or by the first of
            several, with the others to break ties.
        patience: Stop after so many epochs without a better `best_metric`, >= 1.
        warm_start: The ascent starts where that of the epoch before ended for the same sample.
            None: where batches say which sample is which and `augment` can be undone; where not, a
            warning says so once. True: a must. False: never.
        precision: What the network's layers run in, in every pass of a step: "float32" (the
            network's own type), "bf16" or "fp16". None: what surrounds the run says, or its own.
        channels_last: Have convolutions' weights in channels-last order while training. None: on a
            CPU, where the network takes it and is large enough to gain.
        monitor_samples: Samples attacked after each epoch where there is validation data, >= 1.
        seed: Seed of everything random.
        verbose: Print a line for each epoch to stderr; on a terminal show a bar too.
    """

    warmup_epochs: float = 2.0
    held_epochs: float | None = None
    augment: Augmentation | None = None
    max_grad_norm: float | None = 1.0
    weight_perturbation: float | None = None
    max_physical_batch_size: int | None = None
    ema_decay: float | None = None
    best_metric: str | tuple[str, ...] | None = None
    patience: int | None = None
    warm_start: bool | None = None
    precision: str | None = None
    channels_last: bool | None = None
    monitor_samples: int = 256
    seed: int = 0
    verbose: bool = True

    def __post_init__(self) -> None:
        check_number("warmup_epochs", self.warmup_epochs)
        check_number("held_epochs", self.held_epochs, optional=True)
        if self.augment is not None and not callable(self.augment):
            raise WrongTypeError(
                f"augment is {self.augment!r}; allowed: a callable (batch, generator), or None"
            )
        check_number("max_grad_norm", self.max_grad_norm, low_allowed=False, optional=True)
        check_number("weight_perturbation", self.weight_perturbation, optional=True)
        check_integer("max_physical_batch_size", self.max_physical_batch_size, low=1, optional=True)
        check_number("ema_decay", self.ema_decay, low_allowed=False, optional=True)
        if self.ema_decay is not None and self.ema_decay >= 1:
            raise UsageError(f"ema_decay is {self.ema_decay!r}; allowed: a number in (0, 1)")
        check_metrics(self.best_metric)
        check_integer("patience", self.patience, low=1, optional=True)
        if self.patience is not None and self.best_metric is None:
            raise UsageError(
                f"patience is {self.patience!r} with best_metric None; allowed: a best_metric "
                "that says what must improve"
            )
        if self.warm_start is not None:
            check_flag("warm_start", self.warm_start)
        if self.channels_last is not None:
            check_flag("channels_last", self.channels_last)
        if self.precision is not None:
            check_choice("precision", self.precision, PRECISIONS)
        if self.precision == "fp16" and self.weight_perturbation is not None:
            raise UsageError(
                f"weight_perturbation is {self.weight_perturbation!r} with precision 'fp16', whose "
                "gradients may overflow; allowed: 'bf16' or 'float32'"
            )
        check_integer("monitor_samples", self.monitor_samples, low=1)
        check_seed("seed", self.seed)
        check_flag("verbose", self.verbose)
        object.__setattr__(self, "seed", int(self.seed))  # torch takes no NumPy integers

    def let_in(self, epochs: float) -> float:
        """The part of the minus term that counts after so many epochs: 0, then rising to 1."""
        held = self.warmup_epochs if self.held_epochs is None else self.held_epochs
        return min(1.0, max(0.0, (epochs / held - 1.0) / LET_IN)) if held else 1.0


def check_fit_arguments(nb_epochs: int, checkpoint_dir: object, resume: bool) -> Path | None:
    """Check what every `fit` takes; the directory as a path."""
    check_integer("nb_epochs", nb_epochs, low=1)
    check_flag("resume", resume)
    if checkpoint_dir is None:
        if resume:
            raise UsageError("resume is True with checkpoint_dir None; allowed: a checkpoint_dir")
        return None
    return as_path("checkpoint_dir", checkpoint_dir)
