"""The keywords that the loss, the trainer and the command line share: names, types, one line each.

Here for type checkers (`**settings: Unpack[...]`) and for `art-lfr train --help`; their defaults
and checks are in `LFRSettings` and `TrainingOptions`. Imports nothing that takes time.
"""

from __future__ import annotations

from typing import Annotated, Optional, TypedDict

# Optional and Union, not `|`: Python 3.10 evaluates these for the command line.


class LFRKeywords(TypedDict, total=False):
    """Settings of the objective, beside the ball and the length of a step."""

    lam: Annotated[Optional[float], "Weight of the penalty; default: a multiple of eps."]  # noqa: UP045
    estimator: Annotated[
        str, "finite-difference (the default), or exact (double back-propagation)."
    ]
    radius: Annotated[Optional[float], "Finite-difference radius; default: a multiple of eps."]  # noqa: UP045
    batch_norm: Annotated[
        str, "Statistics of the penalty's passes: train (their own, the default) or eval."
    ]
    renew_every: Annotated[
        Optional[int],  # noqa: UP045
        "Renew the gradient at the point itself in every n-th ascent step (l-inf 2, else 1).",
    ]
    autocast: Annotated[bool, "Run the ascent's layers in bfloat16: faster."]


class TrainingKeywords(TypedDict, total=False):
    """How the trainer trains."""

    warm_start: Annotated[
        bool,
        "Start the ascent where that of the epoch before ended for the same image; for --max-iter "
        "1 or 2 and an --eps-step of 0.4 eps.",
    ]
    warmup_epochs: Annotated[float, "eps and lam rise over the first so many epochs; default: 2."]
    max_grad_norm: Annotated[Optional[float], "Clip the gradient to this l2 norm."]  # noqa: UP045
    weight_perturbation: Annotated[
        Optional[float],  # noqa: UP045
        "AWP on top: perturb the weights by this part of their norm (0.005).",
    ]
    max_physical_batch_size: Annotated[
        Optional[int],  # noqa: UP045
        "Take batches in parts of at most so many samples: less memory.",
    ]
    ema_decay: Annotated[Optional[float], "Average the weights with this decay, in (0, 1)."]  # noqa: UP045
    best_metric: Annotated[
        str | tuple[str, ...] | None,
        "Keep the weights of the best epoch by this metric, such as validation_robust_accuracy.",
    ]
    patience: Annotated[
        Optional[int],  # noqa: UP045
        "Stop after so many epochs without a better --best-metric.",
    ]
    monitor_samples: Annotated[int, "Validation images attacked after each epoch; default: 256."]


class TrainerKeywords(LFRKeywords, TrainingKeywords, total=False):
    """What `AdversarialTrainerLFRPyTorch` takes beside the keywords in its signature."""
