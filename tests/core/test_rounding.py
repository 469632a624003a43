"""Precision: differences that are only rounding count as zero, and narrow types work."""

from __future__ import annotations

import math

import pytest
import torch
from lfr_testing import Recorder
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion
from art_lfr.core.flatness import find_least_flat_point
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.gradients import significant_difference
from art_lfr.core.settings import LFRSettings
from art_lfr.loss import lfr_loss
from art_lfr.measure import local_flatness

NORMS = (math.inf, 2.0, 1.0)


class NoisyLinear(nn.Module):
    """u (cos^2 u + sin^2 u) with u = 3 w.x: linear but for the rounding of each step."""

    def forward(self, x: Tensor) -> Tensor:
        u = 3 * (x * torch.linspace(0.5, 1.5, x.shape[1], dtype=x.dtype)).sum(dim=1)
        return u * u.cos() ** 2 + u * u.sin() ** 2


class Curved(nn.Module):
    """1e-3 |x|^2 on top of a slope: little curvature, but more than rounding."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=1) + 1e-3 * (x**2).sum(dim=1)


def outputs_alone(outputs: Tensor, y: Tensor) -> Tensor:
    return outputs


def iterates(model: nn.Module, dtype: torch.dtype, p: float) -> list[Tensor]:
    recorded = Recorder(model)
    x = torch.rand(32, 5, dtype=dtype) * 0.6 + 0.2
    # Both gradients in each step, so that every second input is an iterate.
    settings = LFRSettings(eps=0.1, norm=p, steps=5, renew_every=1)
    find_least_flat_point(
        recorded,
        Criterion(outputs_alone),
        x,
        torch.zeros(32),
        ball=Ball(0.1, p, Box.from_bounds((0.0, 1.0), x)),
        settings=settings,
        start=x,
    )
    points: list[Tensor] = recorded.inputs[::2]
    assert torch.equal(points[0], x)
    return points


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_noise_does_not_move_the_ascent(dtype: torch.dtype, p: float) -> None:
    points = iterates(NoisyLinear(), dtype, p)
    # Otherwise the test would pass for a gradient without noise.
    gradients = []
    for point in (points[0], points[0] + 0.05):
        point = point.clone().requires_grad_(True)
        gradients += torch.autograd.grad(NoisyLinear()(point).sum(), point)
    assert not torch.equal(*gradients)
    assert all(torch.equal(point, points[0]) for point in points)


@pytest.mark.parametrize("p", NORMS)
def test_slight_curvature_does_move_it(p: float) -> None:
    points = iterates(Curved(), torch.float32, p)
    assert (points[-1] - points[0]).abs().flatten(1).amax(dim=1).min() > 0.01


def test_significant_difference_judges_each_sample_by_its_own_size() -> None:
    a = torch.tensor([[1.0, 1.0], [1e-6, 1e-6], [0.0, 0.0]])
    b = a + torch.tensor([[1e-7, 1e-3], [1e-7, 0.0], [0.0, 0.0]])
    difference = significant_difference(b, a)
    assert (difference != 0).tolist() == [[False, True], [True, False], [False, False]]


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("estimator", ["finite-difference", "exact"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_types_of_inputs(dtype: torch.dtype, estimator: str, p: float) -> None:
    model = nn.Sequential(nn.Linear(300, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    x, y = torch.rand(6, 300).to(dtype), torch.arange(6) % 3
    bounds = (torch.zeros(300, dtype=torch.float64), 1.0)
    terms = lfr_loss(model, x, y, eps=0.1, lam=0.1, norm=p, estimator=estimator, bounds=bounds)
    # Losses of narrow types are taken in float32: their differences would have few digits.
    assert terms.total.dtype == torch.promote_types(dtype, torch.float32)
    terms.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    flatness = local_flatness(model, x, y, eps=0.1, norm=p, estimator=estimator, restarts=2)
    # The norm of a half-precision gradient is accumulated and returned in float32.
    assert flatness.dtype == torch.promote_types(dtype, torch.float32)
    wide = local_flatness(
        model.double(), x.double(), y, eps=0.1, norm=p, estimator=estimator, restarts=2
    )
    error = {torch.bfloat16: 0.25, torch.float32: 1e-3, torch.float64: 1e-3}[dtype]
    torch.testing.assert_close(flatness.double(), wide, rtol=error, atol=0)
