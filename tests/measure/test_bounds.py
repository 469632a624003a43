"""The inequalities of docs/neighbours.md, on every point of a grid over the ball."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from art_lfr import local_flatness
from art_lfr.core.criterion import Criterion
from art_lfr.core.flatness import find_least_flat_point
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.settings import LFRSettings

DUAL = {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}
POINTS = 81


def network(seed: int, layer: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(2, 24), layer(), nn.Linear(24, 24), layer(), nn.Linear(24, 3))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)
    return made.double()


def losses(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """l and its gradient at each row of x, for label 0."""
    x = x.clone().requires_grad_()
    values = nn.functional.cross_entropy(model(x), x.new_zeros(len(x)).long(), reduction="none")
    (gradients,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), gradients


def ball(x: Tensor, eps: float, p: float) -> Tensor:
    """Points of the eps-ball around x inside [0, 1]; the first is x."""
    axis = torch.linspace(-1, 1, POINTS, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    grid = grid[torch.linalg.vector_norm(grid, p, dim=1) <= 1]
    points = x + eps * grid
    inside = ((points >= 0) & (points <= 1)).all(dim=1)
    return torch.cat([x[None], points[inside]])


@pytest.mark.parametrize("layer", [nn.ReLU, nn.Softplus])
@pytest.mark.parametrize("p", DUAL)
@given(seed=st.integers(0, 999), eps=st.floats(0.01, 0.5))
def test_bounds(layer, p, seed, eps):
    model = network(seed, layer)
    x = torch.rand(2, dtype=torch.float64)
    points = ball(x, eps, p)
    values, gradients = losses(model, points)
    slopes = torch.linalg.vector_norm(gradients, DUAL[p], dim=1)
    flatness, slope = float(slopes.max()), float(slopes[0])
    vulnerability = float((values - values[0]).max())
    gap = float((values - values[0] - (points - x) @ gradients[0]).abs().max())
    # Between points of the grid the slope can be larger than at all of them.
    tolerance = 1e-9 + (0.05 * eps * flatness if layer is nn.ReLU else 0.005 * eps * flatness)
    assert vulnerability <= eps * flatness + tolerance
    assert slope <= flatness
    assert vulnerability <= eps * slope + gap + 1e-9
    assert gap <= 2 * eps * flatness + 2 * tolerance
    # What the ascent finds is a lower bound of the true maximum: the slope at a point of the ball.
    y = torch.zeros(1).long()
    point, found, _ = find_least_flat_point(
        model,
        Criterion(),
        x[None],
        y,
        ball=Ball(eps, p, Box.from_bounds((0.0, 1.0), x[None])),
        settings=LFRSettings(eps=eps, norm=p),
        start=x[None],
    )
    assert float(torch.linalg.vector_norm(point - x, p)) <= eps + 1e-9
    assert bool(((point >= 0) & (point <= 1)).all())
    slope_there = torch.linalg.vector_norm(losses(model, point)[1], DUAL[p], dim=1)
    assert float(found) == pytest.approx(float(slope_there))
    if layer is nn.Softplus:
        # And near that of the grid, between whose points a ReLU network can have other pieces.
        measured = local_flatness(model, x[None], y, eps=eps, norm=p, restarts=3)
        assert float(measured) <= 1.1 * flatness + 1e-9
        # The Lipschitz constant of g in B: the largest over the grid's neighbours is near it.
        change = torch.linalg.vector_norm(gradients - gradients[0], DUAL[p], dim=1)
        distance = torch.linalg.vector_norm(points - x, p, dim=1)
        lipschitz = float((change[1:] / distance[1:].clamp_min(1e-12))[distance[1:] > 0].max())
        assert flatness <= slope + lipschitz * eps + 1e-9
        assert vulnerability <= eps * slope + lipschitz * eps**2 / 2 + 1e-9


def test_a_bound_on_the_loss_keeps_the_class():
    """l(x) + eps LF < log 2: the true class has more than half of the probability in the ball."""
    kept = 0
    for seed in range(200):
        model, x, eps = network(seed, nn.Softplus), torch.rand(2, dtype=torch.float64), 0.02
        points = ball(x, eps, math.inf)
        values, gradients = losses(model, points)
        flatness = float(gradients.abs().sum(dim=1).max())
        if float(values[0]) + eps * flatness < math.log(2):
            kept += 1
            assert bool((model(points).argmax(dim=1) == 0).all())
            assert bool((values < math.log(2)).all())
    assert kept > 10
