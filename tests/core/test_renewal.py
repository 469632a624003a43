"""An ascent that renews the gradient at its points in some steps only: formula, cost, finding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lfr_testing import input_gradient
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion
from art_lfr.core.flatness import LeastFlatPoint, find_least_flat_point, flatness_values
from art_lfr.core.geometry import Ball, Box, sample_norm
from art_lfr.core.settings import LFRSettings
from art_lfr.loss import lfr_loss

NORMS = (math.inf, 2.0, 1.0)
EPS = 0.1
Network = Callable[..., nn.Sequential]
Batch = Callable[..., tuple[Tensor, Tensor]]


def ascend(model: nn.Module, x: Tensor, y: Tensor, **keywords: Any) -> LeastFlatPoint:
    settings = LFRSettings(eps=EPS, **keywords)
    ball = Ball(EPS, settings.norm, Box.from_bounds((0.0, 1.0), x))
    return find_least_flat_point(model, Criterion(), x, y, ball=ball, settings=settings, start=x)


@pytest.fixture
def passes() -> Callable[[nn.Module], list[Tensor]]:
    """Every input that a network is given from now on."""

    def watch(model: nn.Module) -> list[Tensor]:
        seen: list[Tensor] = []
        model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
        return seen

    return watch


@pytest.mark.parametrize("every", [1, 2, 3, 9])
def test_steps_by_hand(
    smooth: Network, batch: Batch, passes: Callable[..., list[Tensor]], every: int
) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    point, visited = x, [x]
    for step in range(4):
        if step % every == 0:
            held = latest = input_gradient(model, point, y)
        latest = input_gradient(model, point + 0.02 * latest.sign(), y)
        point = (point + 0.03 * (latest - held).sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
        visited.append(point)
    seen = passes(model)
    found = ascend(model, x, y, steps=4, step_size=0.03, radius=0.02, renew_every=every)
    torch.testing.assert_close(seen[-1], point)
    assert len(seen) == 4 + math.ceil(4 / every) + 1
    # The best of those points whose gradient is known.
    known = [p for k, p in enumerate(visited) if k % every == 0 or k == 4]
    slopes = torch.stack([input_gradient(model, p, y).abs().sum(1) for p in known])
    torch.testing.assert_close(found.flatness, slopes.amax(0))
    torch.testing.assert_close(found.gradient, input_gradient(model, found.point, y))


@pytest.mark.parametrize("p", NORMS)
def test_it_stays_in_ball_and_box(smooth: Network, batch: Batch, p: float) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    point = ascend(model, x, y, norm=p, renew_every=3).point
    assert ((point >= 0) & (point <= 1)).all()
    assert (sample_norm(point - x, p) <= EPS * (1 + 1e-6)).all()
    assert (point != x).any()


@pytest.mark.parametrize(("every", "part"), [(2, 0.9), (10, 0.7)])
@pytest.mark.parametrize("p", NORMS)
def test_it_finds_most_of_what_is_found(
    smooth: Network, batch: Batch, p: float, every: int, part: float
) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    at_x = ascend(model, x, y, norm=p, steps=0).flatness.mean()
    best = ascend(model, x, y, norm=p, renew_every=1).flatness.mean()
    found = ascend(model, x, y, norm=p, renew_every=every).flatness.mean()
    assert best > 1.05 * at_x
    assert found - at_x > part * (best - at_x)


def test_the_exact_ascent_and_a_measurement_take_no_heed(smooth: Network, batch: Batch) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    exact = [ascend(model, x, y, estimator="exact", renew_every=r).point for r in (1, 5)]
    assert torch.equal(*exact)
    measured = [
        flatness_values(
            model,
            Criterion(),
            x,
            y,
            box=Box.from_bounds((0.0, 1.0), x),
            settings=LFRSettings(eps=EPS, renew_every=r),
            generator=torch.Generator().manual_seed(0),
        )
        for r in (1, 5)
    ]
    assert torch.equal(*measured)


def test_the_loss_takes_it(
    smooth: Network, batch: Batch, passes: Callable[..., list[Tensor]]
) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    seen = passes(model)
    lfr_loss(model, x, y, eps=EPS, steps=10, renew_every=2)
    # The ascent; the clean pass; both ends of the difference.
    assert len(seen) == 10 + 5 + 1 + 3


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_it_is_a_count(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=f"renew_every is {value!r}"):
        LFRSettings(eps=EPS, renew_every=value)
