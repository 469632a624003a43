"""A loss around samples, in one form for modules and for ART classifiers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.art.adapter import BoundsChoice
from art_lfr.attacks.target import make_target, preserved
from art_lfr.core.criterion import Criterion, LossLike
from art_lfr.core.geometry import Box
from art_lfr.core.gradients import input_gradient


@dataclass(frozen=True)
class Problem:
    """A loss l, and the samples to look at: all tensors on the model's device.

    `x` (N, ...) in raw units; `y` is what the loss takes, `labels` (N,) are indices.
    """

    module: nn.Module
    criterion: Criterion
    x: Tensor
    y: Tensor
    labels: Tensor
    box: Box
    batch_size: int

    def batches(
        self, x: Tensor | None = None, y: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets, `batch_size` at a time; None: the samples themselves."""
        x, y = self.x if x is None else x, self.y if y is None else y
        size = self.batch_size
        return zip(torch.split(x, size), torch.split(y, size), strict=True)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample, shape (N,), `batch_size` samples at a time."""
        with torch.no_grad():
            pairs = self.batches(x, y)
            return torch.cat([self.criterion.values(self.module(a), b) for a, b in pairs])

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """grad_x of each sample's loss, shape of x, `batch_size` samples at a time."""
        pairs = self.batches(x, y)
        return torch.cat([input_gradient(self.module, self.criterion, a, b) for a, b in pairs])

    def unharmed(self) -> AbstractContextManager[None]:
        """Eval mode for a while; modes, flags, `.grad` and random state come back."""
        return preserved(self.module, self.x.device)


def make_problem(
    model: object,
    x: Any,
    y: Any,
    *,
    bounds: BoundsChoice = "auto",
    loss: LossLike = None,
    batch_size: int = 256,
) -> Problem:
    """Check a module, or an ART classifier with its own loss and clip_values, with its data.

    Raises ValueError and TypeError, naming the parameter.
    """
    target = make_target(model, x, y, eps=None, bounds=bounds, loss=loss, batch_size=batch_size)
    return Problem(
        module=target.module,
        criterion=target.adapter.criterion,
        x=target.x.to(target.device),
        y=target.adapter.targets(target.y).to(target.device),
        labels=target.y,
        box=target.ball.box.to(target.device),
        batch_size=batch_size,
    )
