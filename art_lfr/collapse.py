"""Collapse: a network that predicts one class whatever it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Of fewer samples, one label for all may be chance.
FEWEST = 10


def collapse(batches: Sequence[tuple[Tensor, Tensor]], prefix: str) -> str | None:
    """What a collapsed network does, in words; None where the network is none.

    It predicts one class for all samples, or for all of each batch: where the optimizer steps
    between batches, it moves a constant network on from one class to another.

    Args:
        batches: Predicted labels and targets of each, (N,), in the order of their predictions.
        prefix: What the samples are called.
    """
    labels, targets = (torch.cat(part) for part in zip(*batches, strict=True))
    if _constant([(labels, targets)]):
        return f"predicts class {int(labels[0])} for all {len(labels)} {prefix} samples"
    if _constant(batches):
        return (
            f"predicts one class for all samples of a batch, in each of the last {len(batches)} "
            f"{prefix} batches"
        )
    return None


def _constant(batches: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether in each batch of several classes the prediction is one class."""
    mixed = [labels for labels, y in batches if len(y) > 0 and bool((y != y[0]).any())]
    chances = sum(len(labels) - 1 for labels in mixed)
    return chances >= FEWEST - 1 and all(bool((part == part[0]).all()) for part in mixed)
