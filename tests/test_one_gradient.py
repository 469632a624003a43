"""The ascent of one gradient a step: its formula, its cost, and what it finds beside the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from art_lfr.criterion import Criterion
from art_lfr.flatness import ascend_with_one_gradient, find_least_flat_point
from art_lfr.geometry import Ball, Box, dual_norm, sample_norm
from art_lfr.gradients import input_gradient
from art_lfr.loss import lfr_loss
from art_lfr.settings import LFRSettings

NORMS = (math.inf, 2.0, 1.0)
EPS = 0.1
Network = Callable[..., nn.Sequential]
Batch = Callable[..., tuple[Tensor, Tensor]]


def ascend(search: Any, model: nn.Module, x: Tensor, y: Tensor, start: Tensor, **keywords: Any):
    settings = LFRSettings(eps=EPS, **keywords)
    ball = Ball(EPS, settings.p, Box.from_bounds((0.0, 1.0), x))
    return search(model, Criterion(), x, y, ball=ball, settings=settings, start=start)


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """grad l(x), written apart from the package."""
    x = x.clone().requires_grad_(True)
    F.cross_entropy(model(x), y, reduction="sum").backward()
    assert x.grad is not None
    return x.grad


def test_three_steps_by_hand(smooth: Network, batch: Batch) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    start = (x + 0.01).clamp(0, 1)
    found = ascend(
        ascend_with_one_gradient, model, x, y, start, steps=3, step_size=0.04, radius=0.02
    )
    first = latest = u = gradient(model, start, y)
    point = start
    for step in range(3):
        if step > 0:
            latest = gradient(model, point + 0.02 * latest.sign(), y)
            u = latest - first
        point = (point + 0.04 * u.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    torch.testing.assert_close(found, point)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_one_gradient_a_step(smooth: Network, batch: Batch, steps: int) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    model.register_forward_hook(count)
    ascend(ascend_with_one_gradient, model, x, y, x, steps=steps)
    assert passes == steps
    passes = 0
    lfr_loss(model, x, y, eps=EPS, steps=steps, estimator="one-gradient")
    # The ascent, the gradient at its end, the clean pass, and both ends of the difference.
    assert passes == steps + 4


@pytest.mark.parametrize("p", NORMS)
def test_it_stays_in_ball_and_box(smooth: Network, batch: Batch, p: float) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    point = ascend(ascend_with_one_gradient, model, x, y, x, norm=p)
    assert ((point >= 0) & (point <= 1)).all()
    assert (sample_norm(point - x, p) <= EPS * (1 + 1e-6)).all()
    assert (point != x).any()


@pytest.mark.parametrize("p", NORMS)
def test_it_finds_about_what_two_gradients_find(smooth: Network, batch: Batch, p: float) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    point = ascend(ascend_with_one_gradient, model, x, y, x, norm=p)
    best = ascend(find_least_flat_point, model, x, y, x, norm=p).flatness.mean()
    found, at_x = (
        sample_norm(input_gradient(model, Criterion(), z, y), dual_norm(p)).mean()
        for z in (point, x)
    )
    # It keeps no best point, and the gradient that it holds fixed ages on so curved a network.
    assert found - at_x > 0.8 * (best - at_x)


def test_modes_and_flags_are_left_as_found(smooth: Network, batch: Batch) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    model.train()
    next(model.parameters()).requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    ascend(ascend_with_one_gradient, model, x, y, x)
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
