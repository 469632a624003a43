"""The keywords that the loss, the trainer and the command line share: names, types, one line each.

Here for type checkers (`**settings: Unpack[...]`) and for `art-lfr train --help`; their defaults
and checks are in `LFRSettings` and `TrainingOptions`. Imports nothing that takes time.
"""

from __future__ import annotations

from typing import Annotated, TypedDict


class LFRKeywords(TypedDict, total=False):
    """Settings of the objective, beside the ball and the length of a step."""

    lam: Annotated[float | None, "Weight of the penalty; default: the data set's, else eps / 2."]
    estimator: Annotated[
        str, "finite-difference (the default), or exact (double back-propagation)."
    ]
    radius: Annotated[
        float | None, "Finite-difference radius; default: the data set's, else eps / 4."
    ]
    batch_norm: Annotated[
        str, "Statistics of the penalty's passes: train (their own, the default) or eval."
    ]
    renew_every: Annotated[
        int, "Renew the gradient at the point itself in every n-th ascent step; default: 1."
    ]
    autocast: Annotated[bool, "Run the ascent's layers in bfloat16: faster."]


class TrainingKeywords(TypedDict, total=False):
    """How the trainer trains."""

    warm_start: Annotated[
        bool | None,
        "Start the ascent where that of the epoch before ended for the same image; default: where "
        "that is possible.",
    ]
    precision: Annotated[
        str | None,
        "Type of the layers in every pass of a step: float32 (the default), bf16 or fp16.",
    ]
    channels_last: Annotated[
        bool | None,
        "Convolutions' weights in channels-last order while training; default: on a CPU, where "
        "the network gains.",
    ]
    warmup_epochs: Annotated[
        float, "eps and lam rise over the first so many epochs; default: the data set's, else 2."
    ]
    held_epochs: Annotated[
        float | None,
        "The minus term of the finite difference is held over so many epochs, and let in over "
        "twice as many; default: as --warmup-epochs.",
    ]
    max_grad_norm: Annotated[float | None, "Clip the gradient to this l2 norm; default: 1."]
    weight_perturbation: Annotated[
        float | None,
        "AWP on top: perturb the weights by this part of their norm (0.005).",
    ]
    max_physical_batch_size: Annotated[
        int | None,
        "Take batches in parts of at most so many samples: less memory.",
    ]
    ema_decay: Annotated[float | None, "Average the weights with this decay, in (0, 1)."]
    best_metric: Annotated[
        str | tuple[str, ...] | None,
        "Keep the weights of the best epoch by this metric, such as validation_robust_accuracy.",
    ]
    patience: Annotated[
        int | None,
        "Stop after so many epochs without a better --best-metric.",
    ]
    monitor_samples: Annotated[int, "Validation images attacked after each epoch; default: 256."]


class TrainerKeywords(LFRKeywords, TrainingKeywords, total=False):
    """What `AdversarialTrainerLFRPyTorch` takes beside the keywords in its signature."""
