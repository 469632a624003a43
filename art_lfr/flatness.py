"""Local flatness LF(x) = max over the eps-ball of ||grad l||_q, and the ascent that seeks it.

Source: Xu, Li, Jiang, Xia, "Adversarial Defense via Local Flatness Regularization", ICIP 2020.
The ascent direction is u = grad ||grad l||_q = H s, with H the input Hessian and s the dual
vector of the gradient g: <g, s> = ||g||_q.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from art_lfr.criterion import Criterion
from art_lfr.geometry import (
    Ball,
    Box,
    dual_norm,
    dual_vector,
    per_sample,
    sample_norm,
)
from art_lfr.gradients import input_gradient, second_derivative, significant_difference
from art_lfr.modes import frozen, mode
from art_lfr.randomness import preserved_random_state
from art_lfr.settings import LFRSettings


class LeastFlatPoint(NamedTuple):
    """The best point of an ascent: x' (N, ...), ||grad l(x')||_q (N,), and grad l(x') (N, ...)."""

    point: Tensor
    flatness: Tensor
    gradient: Tensor


def curvature_direction(
    model: nn.Module, criterion: Criterion, x: Tensor, y: Tensor, settings: LFRSettings
) -> tuple[Tensor, Tensor]:
    """The gradient g and the ascent direction u = H s of its dual norm, up to a positive scale.

    "exact": by double back-propagation. Otherwise g(x + h s) - g(x), which needs first-order
    gradients only and sees the kinks of a piecewise linear network.
    """
    if settings.estimator != "exact":
        g = input_gradient(model, criterion, x, y)
        shifted = x + settings.resolved_radius * dual_vector(g, settings.p)
        return g, significant_difference(input_gradient(model, criterion, shifted, y), g)
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        g = input_gradient(model, criterion, x, y, create_graph=True)
        if not g.requires_grad:  # a loss without any curvature
            return g.detach(), torch.zeros_like(g)
        s = dual_vector(g.detach(), settings.p)
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

    x_{k+1} = project(x_k + step_size * steepest(u_k)). Coordinates that u_k pushes out of the box
    take no part in the step. Runs with the model in eval mode and no parameter gradients. K steps
    take K + 1 gradients and K Hessian-vector products ("exact"), or else 2 K + 1 gradients.
    """
    q = dual_norm(ball.p)
    steps, step_size = settings.steps, settings.resolved_step_size
    point = start.detach()
    best: LeastFlatPoint | None = None
    with mode(model, training=False), frozen(model):
        for step in range(steps + 1):
            if step < steps:
                g, u = curvature_direction(model, criterion, point, y, settings)
            else:
                g = input_gradient(model, criterion, point, y)
            best = _keep_best(best, LeastFlatPoint(point, sample_norm(g, q), g))
            if step < steps:
                point = ball.ascend(point, u, x, step_size)
    assert best is not None
    return best


def ascend_with_one_gradient(
    model: nn.Module,
    criterion: Criterion,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    settings: LFRSettings,
    start: Tensor,
) -> Tensor:
    """A point that is about as far from flat, by K gradients for K steps; shape of x.

    The step of `find_least_flat_point` along g(x_k + h s_k) - g(x_k), but with g(x_0) in place of
    g(x_k), and with the dual vector of the last gradient taken for s_k. So x_k climbs
    l(x_k + h s) - <g(x_0), x_k>: by how much the loss beside x_k exceeds its linearisation at x_0.
    The first step, for want of a second gradient, is along g(x_0) itself.

    It returns the last point, whose gradient is not known. docs/performance.md has what it finds.
    """
    point, step_size, h = start.detach(), settings.resolved_step_size, settings.resolved_radius
    with mode(model, training=False), frozen(model):
        for step in range(settings.steps):
            if step == 0:
                first = latest = u = input_gradient(model, criterion, point, y)
            else:
                shifted = point + h * dual_vector(latest, ball.p)
                latest = input_gradient(model, criterion, shifted, y)
                u = significant_difference(latest, first)
            point = ball.ascend(point, u, x, step_size)
    return point


def _keep_best(best: LeastFlatPoint | None, new: LeastFlatPoint) -> LeastFlatPoint:
    if best is None:
        return new
    better = new.flatness > best.flatness
    mask = per_sample(better, new.point)
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
) -> Tensor:
    """||grad l||_q at the least flat point found around each sample, shape (N,).

    The first ascent starts beside x, further `restarts` at random points of the ball.
    """
    ball = Ball(settings.eps, settings.p, box)
    found: list[Tensor] = []
    # Restarts outside, so that the first ascents draw the same noise however many follow.
    with preserved_random_state(x.device):
        for draw in [ball.start_point] + [ball.random_point] * (restarts - 1):
            values = [
                find_least_flat_point(
                    model,
                    criterion,
                    x[i : i + batch_size],
                    y[i : i + batch_size],
                    ball=ball,
                    settings=settings,
                    start=draw(x[i : i + batch_size], generator),
                ).flatness
                for i in range(0, len(x), batch_size)
            ]
            found.append(torch.cat(values))
    return torch.stack(found).amax(dim=0)
