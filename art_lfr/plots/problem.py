"""A loss around samples, for modules and ART classifiers, and the highest loss in each ball."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from art_lfr.art.module import BoundsChoice
from art_lfr.attacks.target import make_target, preserved
from art_lfr.core.arguments import check_integer
from art_lfr.core.criterion import Criterion, LossLike
from art_lfr.core.geometry import Ball, dual_vector, per_sample
from art_lfr.core.gradients import input_gradient
from art_lfr.core.imports import data_frame
from art_lfr.core.pgd import projected_gradient_descent

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Problem:
    """A loss l, and the samples to look at: all tensors on the model's device.

    `x` (N, ...) in raw units; `y` is what the loss takes, `labels` (N,) are indices. `seed` is that
    of all searches in the ball.
    """

    module: nn.Module
    criterion: Criterion
    x: Tensor
    y: Tensor
    labels: Tensor
    ball: Ball
    batch_size: int
    seed: int

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

    def preserved(self) -> AbstractContextManager[None]:
        """Eval mode for a while; modes, flags, `.grad` and random state come back."""
        return preserved(self.module, self.x.device)


def frame_of(samples: Any, *columns: str) -> pandas.DataFrame:
    """One row for each sample: its index, its label, and these attributes of all."""
    index, values = range(len(samples.labels)), {name: getattr(samples, name) for name in columns}
    return data_frame({"index": index, "label": samples.labels, **values})


def make_problem(
    model: object,
    x: Any,
    y: Any,
    *,
    eps: float | None = None,
    norm: float | str = math.inf,
    bounds: BoundsChoice = "auto",
    loss: LossLike = None,
    batch_size: int = 256,
    seed: int = 0,
) -> Problem:
    """Check a module, or an ART classifier with its own loss and clip_values, with its data.

    Raises ValueError and TypeError, naming the parameter.
    """
    settings: dict[str, Any] = {"bounds": bounds, "loss": loss, "batch_size": batch_size}
    target = make_target(model, x, y, eps=eps, norm=norm, seed=seed, **settings)
    return Problem(
        module=target.module,
        criterion=target.adapter.criterion,
        x=target.x.to(target.device),
        y=target.adapter.targets(target.y).to(target.device),
        labels=target.y,
        ball=replace(target.ball, box=target.ball.box.to(target.device)),
        batch_size=batch_size,
        seed=seed,
    )


# A PGD step in units of eps / steps: far enough to cross the ball and to come back.
STEP_SCALE = 2.5


class Highest:
    """The point of highest loss among those offered, sample by sample, for one batch."""

    def __init__(self, problem: Problem, x: Tensor, y: Tensor) -> None:
        self._problem = problem
        self._y = y
        self.point = x
        self.loss = torch.full((len(x),), -math.inf, device=x.device)

    def offer(self, point: Tensor, gradient: Tensor | None = None) -> None:
        """Keep each sample of `point` whose loss is higher; the gradient is not looked at."""
        loss = self._problem.losses(point, self._y)
        better = loss > self.loss
        self.point = torch.where(per_sample(better, point), point, self.point)
        self.loss = torch.where(better, loss, self.loss)


def strongest_examples(problem: Problem, *, steps: int, restarts: int) -> tuple[Tensor, Tensor]:
    """Points of the ball with the highest loss found, (N, ...), and those losses, (N,).

    Tried are: the one-step maximiser of the linearised loss, x + eps s with s the dual vector of
    the gradient (FGSM for norm inf), and every iterate of PGD from `restarts` random starts.
    The loss found is a lower bound of the largest in the ball. The clean x is not among the
    candidates. Raises ValueError or TypeError unless `steps` and `restarts` are integers >= 1.
    """
    check_integer("steps", steps, low=1)
    check_integer("restarts", restarts, low=1)
    generator, ball = torch.Generator().manual_seed(problem.seed), problem.ball
    batches = []
    for x, y in problem.batches():
        highest = Highest(problem, x, y)
        gradient = input_gradient(problem.module, problem.criterion, x, y)
        gradient = gradient.masked_fill(ball.box.blocked(x, gradient), 0.0)
        highest.offer(ball.project(x + ball.eps * dual_vector(gradient, ball.p), x))
        for _ in range(restarts):
            last = projected_gradient_descent(
                problem.module,
                problem.criterion,
                x,
                y,
                ball=ball,
                steps=steps,
                step_size=STEP_SCALE * ball.eps / steps,
                start=ball.random_point(x, generator),
                watch=highest.offer,
            )
            highest.offer(last)
        batches.append(highest)
    return torch.cat([h.point for h in batches]), torch.cat([h.loss for h in batches])
