"""The one check of AutoAttack that is made anew: the search for dynamic defences."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from art_lfr.autoattack.flags import DYNAMIC, differentiates

__all__ = ["check_dynamic"]


def check_dynamic(
    model: Callable[[Tensor], object],
    x: Tensor,
    is_tf_model: bool = False,
    logger: Any = None,
) -> None:
    """Warn where the forward pass of a model computes gradients, through `logger` if there is one.

    Unlike the original it leaves the trace function of a debugger alone, and judges each model by
    itself.
    """
    if is_tf_model:
        text = "the check for dynamic defenses is not currently supported"
    elif differentiates(model, x):
        text = DYNAMIC
    else:
        return
    if logger is None:
        warnings.warn(text, stacklevel=2)
    else:
        logger.log(f"Warning: {text}")
