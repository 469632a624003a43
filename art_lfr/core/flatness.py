"""Local flatness LF(x) = max over the eps-ball of ||grad l||_q, and the ascent that seeks it.

Source: Xu, Li, Jiang, Xia, "Adversarial Defense via Local Flatness Regularization", ICIP 2020.
The ascent direction is u = grad ||grad l||_q = H s, with H the input Hessian and s the dual
vector of the gradient g: <g, s> = ||g||_q.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Ball, Box, dual_norm, dual_vector, per_sample, sample_norm
from art_lfr.core.gradients import input_gradient, second_derivative, significant_difference
from art_lfr.core.modes import frozen, mode
from art_lfr.core.processes import Processes
from art_lfr.core.randomness import preserved_random_state
from art_lfr.core.settings import LFRSettings


class LeastFlatPoint(NamedTuple):
    """The best point of an ascent: x' (N, ...), ||grad l(x')||_q (N,), and grad l(x') (N, ...)."""

    point: Tensor
    flatness: Tensor
    gradient: Tensor


def hessian_direction(
    model: nn.Module, criterion: Criterion, x: Tensor, y: Tensor, p: float
) -> tuple[Tensor, Tensor]:
    """The gradient g at x, and H s by double back-propagation, with s the dual vector of g."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        g = input_gradient(model, criterion, x, y, create_graph=True)
        if not g.requires_grad:  # a loss without any curvature
            return g.detach(), torch.zeros_like(g)
        s = dual_vector(g.detach(), p)
        u = second_derivative(torch.sum(g * s), x)
    return g.detach(), u


def find_least_flat_point(
    model: nn.Module,
    criterion: Criterion,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    settings: LFRSettings,
    start: Tensor,
) -> LeastFlatPoint:
    """Ascend ||grad l||_q from `start` by K projected steps; keep the best point of each sample.

    x_{k+1} = project(x_k + step_size * steepest(u_k)), where u_k is H s ("exact"), or the
    difference g(x_k + h s) - g(x_k), which sees the kinks of a piecewise linear network. With
    `renew_every` r the gradient at x_k is taken for k = 0, r, 2 r, ... only: in between, the last
    one stands for it, and s is the dual vector of the last gradient taken anywhere.

    Runs with the model in eval mode and no parameter gradients. Coordinates that u_k pushes out of
    the box take no part in the step. K steps take K + 1 gradients and K Hessian-vector products
    ("exact"), or else K + ceil(K / r) + 1 gradients.
    """
    point, best = _ascend(model, criterion, x, y, ball=ball, settings=settings, start=start)
    with mode(model, training=False), frozen(model):
        return _less_flat(best, point, input_gradient(model, criterion, point, y), ball.p)


def last_point(
    model: nn.Module,
    criterion: Criterion,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    settings: LFRSettings,
    start: Tensor,
) -> Tensor:
    """Where the ascent of `find_least_flat_point` ends, one gradient less: that at the end."""
    return _ascend(model, criterion, x, y, ball=ball, settings=settings, start=start)[0]


def _ascend(
    model: nn.Module,
    criterion: Criterion,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    settings: LFRSettings,
    start: Tensor,
) -> tuple[Tensor, LeastFlatPoint | None]:
    """The last point, and the best of those before it whose gradient has been taken."""
    exact, h = settings.estimator == "exact", settings.radius
    renew_every = 1 if exact else settings.renew_every
    point, best = start.detach(), None
    with mode(model, training=False), frozen(model):
        for step in range(settings.steps):
            renewed = step % renew_every == 0
            if exact:
                gradient, u = hessian_direction(model, criterion, point, y, ball.p)
            else:
                if renewed:
                    gradient = latest = input_gradient(model, criterion, point, y)
                shifted = point + h * dual_vector(latest, ball.p)
                latest = input_gradient(model, criterion, shifted, y)
                u = significant_difference(latest, gradient)
            if renewed:
                best = _less_flat(best, point, gradient, ball.p)
            point = ball.ascend(point, u, x, settings.step_size)
    return point, best


def _less_flat(
    best: LeastFlatPoint | None, point: Tensor, gradient: Tensor, p: float
) -> LeastFlatPoint:
    """Sample by sample the best point so far, or the new one where its gradient is larger."""
    new = LeastFlatPoint(point, sample_norm(gradient, dual_norm(p)), gradient)
    if best is None:
        return new
    better = new.flatness > best.flatness
    mask = per_sample(better, point)
    return LeastFlatPoint(
        torch.where(mask, new.point, best.point),
        torch.where(better, new.flatness, best.flatness),
        torch.where(mask, new.gradient, best.gradient),
    )


def flatness_values(
    model: nn.Module,
    criterion: Criterion,
    x: Tensor,
    y: Tensor,
    *,
    box: Box,
    settings: LFRSettings,
    generator: torch.Generator,
    restarts: int = 1,
    batch_size: int = 256,
    processes: Processes | None = None,
) -> Tensor:
    """||grad l||_q at the least flat point found around each sample, shape (N,).

    The first ascent starts beside x, further `restarts` at random points of the ball. Both
    gradients are taken in every step: `renew_every` saves time in training, not in a measurement.
    `processes` deal the batches among them, and all get all values.
    """
    processes = processes or Processes.single()
    settings = replace(settings, renew_every=1)
    ball = Ball(settings.eps, settings.norm, box)
    of_each_start: list[Tensor] = []
    inputs, targets = torch.split(x, batch_size), torch.split(y, batch_size)
    # Restarts outside, so that the first ascents draw the same noise however many follow.
    with preserved_random_state(x.device):
        for draw in [ball.start_point] + [ball.random_point] * (restarts - 1):

            def start(index: int, draw: Callable[..., Tensor] = draw) -> Tensor:
                return draw(inputs[index], generator)

            def of_batch(index: int, start: Callable[[int], Tensor] = start) -> list[Tensor]:
                found = find_least_flat_point(
                    model,
                    criterion,
                    inputs[index],
                    targets[index],
                    ball=ball,
                    settings=settings,
                    start=start(index),
                )
                return processes.to_send(found.flatness)

            values = processes.dealt(len(inputs), of_batch, start)
            of_each_start.append(torch.cat([value for (value,) in values]).to(x.device))
    return torch.stack(of_each_start).amax(dim=0)
