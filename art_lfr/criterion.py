"""One loss value per sample, from the loss a user already has."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

LossLike: TypeAlias = nn.Module | Callable[[Tensor, Tensor], Tensor] | None


class Criterion:
    """A per-sample loss L(f(x), y), and the mean that the user's own loss would give.

    `loss` is None (cross-entropy), a `torch.nn` loss with a `reduction`, or a callable that maps
    (outputs, y) to one value per sample, shape (N,). Class weights, `ignore_index` and label
    smoothing of `CrossEntropyLoss` and `NLLLoss` are honoured, with the same normalisation:
    mean = sum of values / sum of the samples' weights.
    """

    def __init__(self, loss: LossLike | Criterion = None) -> None:
        if isinstance(loss, Criterion):
            loss = loss._loss
        loss = nn.CrossEntropyLoss() if loss is None else loss
        if isinstance(loss, nn.Module):
            if not hasattr(loss, "reduction"):
                raise ValueError(
                    f"loss is {type(loss).__name__}, which has no `reduction`; allowed: a torch.nn "
                    "loss with `reduction`, or a callable (outputs, y) -> one value per sample"
                )
            # A shallow copy: the user's loss keeps its own reduction, class weights are shared.
            loss = copy.copy(loss)
            loss.reduction = "none"
        elif not callable(loss):
            raise TypeError(
                f"loss is {loss!r}; allowed: None, a torch.nn loss with `reduction`, "
                "or a callable (outputs, y) -> one value per sample"
            )
        self._loss = loss

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """One loss value per sample, shape (N,)."""
        values: Tensor = self._loss(outputs, y)
        if values.dim() == 0 or len(values) != len(outputs):
            raise ValueError(
                f"loss returned shape {tuple(values.shape)} for {len(outputs)} samples; "
                "allowed: one value per sample"
            )
        return values if values.dim() == 1 else values.flatten(1).mean(dim=1)

    def sample_weights(self, y: Tensor) -> Tensor | None:
        """The weight of each sample in the mean, shape (N,); None where all weigh the same."""
        if not isinstance(self._loss, nn.CrossEntropyLoss | nn.NLLLoss) or y.is_floating_point():
            return None
        ignored = y == self._loss.ignore_index
        if self._loss.weight is None:
            return (~ignored).float() if bool(ignored.any()) else None
        weights = self._loss.weight[y.masked_fill(ignored, 0)]
        return weights.masked_fill(ignored, 0.0)

    def mean(self, values: Tensor, y: Tensor) -> Tensor:
        """The mean over samples as the user's loss takes it: a 0-dim tensor."""
        weights = self.sample_weights(y)
        # Values of weighted losses carry their weight already.
        return values.mean() if weights is None else values.sum() / weights.sum()


def logits_of(outputs: object) -> Tensor:
    """The logits in a model's output: a tensor, or the `.logits` of a Hugging Face output."""
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, torch.Tensor):
        raise TypeError(
            f"the model returned {type(outputs).__name__}; allowed: a tensor of logits, "
            "or an object with `.logits`"
        )
    return logits
