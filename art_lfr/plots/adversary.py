"""The highest loss in a ball: the strongest of several starts of PGD, over all their iterates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from art_lfr.core.geometry import Ball, dual_vector, per_sample
from art_lfr.core.gradients import input_gradient
from art_lfr.core.pgd import projected_gradient_descent
from art_lfr.plots.problem import Problem

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


def strongest_examples(
    problem: Problem, ball: Ball, *, steps: int, restarts: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Points of the ball with the highest loss found, (N, ...), and those losses, (N,).

    Tried are: the one-step maximiser of the linearised loss, x + eps s with s the dual vector of
    the gradient (FGSM for norm inf), and every iterate of PGD from `restarts` random starts.
    The loss found is a lower bound of the largest in the ball. The clean x is not among the
    candidates.
    """
    found = []
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
        found.append(highest)
    return torch.cat([h.point for h in found]), torch.cat([h.loss for h in found])
