"""The ascent and the measure: closed forms, brute force, bounds, and what the ascent promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from art_lfr.core.criterion import Criterion
from art_lfr.core.flatness import LeastFlatPoint, find_least_flat_point, flatness_values
from art_lfr.core.geometry import Ball, Box, dual_norm, sample_norm
from art_lfr.core.gradients import second_derivative
from art_lfr.core.settings import LFRSettings
from art_lfr.measure import local_flatness

NORMS = (math.inf, 2.0, 1.0)
ESTIMATORS = ("finite-difference", "exact")
Network = Callable[..., nn.Sequential]
Batch = Callable[..., tuple[Tensor, Tensor]]


def gradient_norm(model: nn.Module, x: Tensor, y: Tensor, p: float) -> Tensor:
    """||grad l(x)||_q, written apart from the package."""
    x = x.clone().requires_grad_(True)
    F.cross_entropy(model(x), y, reduction="sum").backward()
    assert x.grad is not None
    rows = x.grad.flatten(1).abs()
    return {math.inf: rows.sum(1), 2.0: (rows**2).sum(1).sqrt(), 1.0: rows.amax(1)}[p]


def ascend(
    model: nn.Module, x: Tensor, y: Tensor, *, start: Tensor | None = None, **keywords: Any
) -> LeastFlatPoint:
    # Every point's gradient is taken; test_renewal.py is about taking fewer.
    settings = LFRSettings(renew_every=1, **keywords)
    ball = Ball(settings.eps, settings.norm, Box.from_bounds((0.0, 1.0), x))
    start = ball.start_point(x, torch.Generator().manual_seed(0)) if start is None else start
    return find_least_flat_point(
        model, Criterion(), x, y, ball=ball, settings=settings, start=start
    )


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_linear_two_class_model_against_its_closed_form(p: float, estimator: str) -> None:
    """l = log(1 + exp(-m)), m = w.x + b, so grad l = -sigmoid(-m) w, and m falls by eps ||w||_q."""
    model = nn.Linear(7, 2).double()
    x = torch.randn(20, 7, dtype=torch.float64)
    y = torch.arange(20) % 2
    with torch.no_grad():
        sign = 2.0 * y - 1
        w = model.weight[1] - model.weight[0]
        m = sign * (x @ w + model.bias[1] - model.bias[0])
        w_q = torch.linalg.vector_norm(w, dual_norm(p))
        expected = torch.sigmoid(-m + 0.3 * w_q) * w_q
    ascent: dict[str, Any] = {"steps": 60, "step_size": 0.1, "estimator": estimator}
    found = local_flatness(model, x, y, eps=0.3, norm=p, bounds=(-9.0, 9.0), **ascent)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_three_classes_against_brute_force(smooth: Network, p: float, estimator: str) -> None:
    model, eps = smooth(features=2), 0.1
    x = torch.tensor([[0.5, 0.5], [0.05, 0.3], [0.98, 0.99], [0.2, 0.9]], dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0])
    t = torch.linspace(-eps, eps, 161, dtype=torch.float64)
    offsets = torch.cartesian_prod(t, t)
    offsets = offsets[torch.linalg.vector_norm(offsets, p, dim=1) <= eps]
    brute = []
    for row, label in zip(x, y, strict=True):
        points = row + offsets
        points = points[((points >= 0) & (points <= 1)).all(dim=1)]
        brute.append(gradient_norm(model, points, label.expand(len(points)), p).max())
    found = local_flatness(
        model, x, y, eps=eps, norm=p, steps=40, restarts=8, estimator=estimator, radius=0.005
    )
    expected = torch.stack(brute)
    assert (found <= expected * 1.01).all()
    assert (found >= expected * 0.99).all()


@pytest.mark.parametrize("p", NORMS)
def test_estimators_steer_alike_as_the_radius_goes_to_zero(
    smooth: Network, batch: Batch, p: float
) -> None:
    model, (x, y) = smooth(), batch(8, 6)
    ball: dict[str, Any] = {"eps": 0.05, "norm": p, "steps": 4}
    exact = ascend(model, x, y, estimator="exact", **ball)
    errors = [
        float((ascend(model, x, y, radius=r, **ball).point - exact.point)
              .abs().max())
        for r in (0.3, 1e-6)
    ]  # fmt: skip
    assert errors[1] < 1e-5 < errors[0]


@pytest.mark.parametrize("p", NORMS)
def test_vulnerability_is_bounded_along_segments(smooth: Network, batch: Batch, p: float) -> None:
    """l(x') - l(x) <= ||x' - x||_p * max of ||grad l||_q between the two."""
    model, (x, y), eps = smooth(), batch(12, 6), 0.2
    ball = Ball(eps, p, Box.from_bounds((0.0, 1.0), x))
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        end = ball.random_point(x, generator)
        length = sample_norm(end - x, p)
        assert (length <= eps + 1e-12).all()
        with torch.no_grad():
            rise = F.cross_entropy(model(end), y, reduction="none")
            rise -= F.cross_entropy(model(x), y, reduction="none")
        grid = [gradient_norm(model, x + t * (end - x), y, p) for t in np.linspace(0, 1, 401)]
        assert (rise <= length * torch.stack(grid).amax(dim=0) * (1 + 1e-4)).all()
        flatness = local_flatness(model, x, y, eps=eps, norm=p, steps=20, restarts=2)
        assert (rise <= eps * flatness).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("p", NORMS)
@given(
    shape=st.sampled_from([(3, 6), (2, 3, 2), (2, 1, 2, 3)]),
    eps=st.floats(1e-3, 2.0),
    step_size=st.floats(1e-3, 5.0),
    seed=st.integers(0, 2**31),
)
def test_every_iterate_is_feasible(
    estimator: str, p: float, shape: tuple[int, ...], eps: float, step_size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    low, high = -torch.rand(shape[1:]).double(), 0.1 + torch.rand(shape[1:]).double()
    x = low + (high - low) * torch.rand(shape).double()
    x = torch.where(torch.rand(shape) < 0.3, high.expand(shape), x)
    seen: list[Tensor] = []
    handle = network.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    settings = LFRSettings(
        eps=eps, norm=p, steps=3, step_size=step_size, estimator=estimator, renew_every=1
    )
    box = Box.from_bounds((low, high), x)
    ball = Ball(eps, p, box)
    start = ball.random_point(x, torch.Generator().manual_seed(seed))
    y = torch.arange(len(x))
    best = find_least_flat_point(
        network, Criterion(), x, y, ball=ball, settings=settings, start=start
    )
    handle.remove()
    # The finite difference looks at x + h s after each iterate; that point may leave the ball.
    iterates = seen[:: 2 if estimator == "finite-difference" else 1]
    assert len(iterates) == 4
    for point in [*iterates, best.point]:
        assert (sample_norm(point - x, p) <= eps * (1 + 1e-9) + 1e-12).all()
        assert ((point >= low) & (point <= high)).all()


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_best_point_is_kept(smooth: Network, batch: Batch, p: float, estimator: str) -> None:
    model, (x, y) = smooth(), batch(16, 6)
    # Steps so long that the ascent overshoots: the last point is often not the best.
    previous = torch.zeros(16, dtype=torch.float64)
    for steps in range(6):
        best = ascend(
            model, x, y, start=x, eps=0.3, norm=p, steps=steps, step_size=0.3, estimator=estimator
        )
        torch.testing.assert_close(best.flatness, gradient_norm(model, best.point, y, p))
        torch.testing.assert_close(best.flatness, sample_norm(best.gradient, dual_norm(p)))
        assert (best.flatness >= previous).all()
        previous = best.flatness
    assert (previous > gradient_norm(model, x, y, p)).any()


def test_more_restarts_never_find_less(smooth: Network, batch: Batch) -> None:
    model, (x, y) = smooth(), batch(10, 6)
    values = [
        local_flatness(model, x, y, eps=0.3, steps=2, restarts=r, batch_size=4) for r in (1, 2, 5)
    ]
    assert (values[1] >= values[0]).all()
    assert (values[2] >= values[1]).all()
    assert (values[2] > values[0]).any()


@pytest.mark.parametrize("steps", [0, 3])
def test_k_steps_take_k_products_with_the_hessian(
    smooth: Network, batch: Batch, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    taken = []

    def counted(*arguments: Any) -> Tensor:
        taken.append(arguments)
        return second_derivative(*arguments)

    monkeypatch.setattr("art_lfr.core.flatness.second_derivative", counted)
    model, (x, y) = smooth(), batch(4, 6)
    local_flatness(model, x, y, eps=0.1, steps=steps, estimator="exact")
    assert len(taken) == steps


def test_a_measurement_is_one_ascent_in_batches_of_256(
    smooth: Network, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def noted(
        model: nn.Module, criterion: Criterion, x: Tensor, *rest: Any, **keywords: Any
    ) -> Any:
        sizes.append(len(x))
        return find_least_flat_point(model, criterion, x, *rest, **keywords)

    monkeypatch.setattr("art_lfr.core.flatness.find_least_flat_point", noted)
    x, y = batch(257, 6)
    box, settings = Box.from_bounds((0.0, 1.0), x), LFRSettings(eps=0.1, steps=0)
    generator = torch.Generator().manual_seed(0)
    flatness_values(smooth(), Criterion(), x, y, box=box, settings=settings, generator=generator)
    assert sizes == [256, 1]


def test_a_measurement_repeats_from_its_seed_alone(smooth: Network, batch: Batch) -> None:
    model, (x, y) = smooth(), batch(12, 6)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(local_flatness(model, x, y, eps=0.1, steps=0, seed=0))
    assert torch.equal(*found)
    assert not torch.equal(found[0], local_flatness(model, x, y, eps=0.1, steps=0, seed=1))


@pytest.mark.parametrize("p", [2.0, 1.0])
def test_the_edge_of_the_box_does_not_swallow_the_step(p: float) -> None:
    """Nearly all of u points out of the box: the whole step goes along what is left."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return 50 * outputs[:, 0] ** 2 + outputs[:, 1] ** 2

    x = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    settings = LFRSettings(eps=0.2, norm=p, steps=1, step_size=0.1, estimator="exact")
    ball = Ball(0.2, p, Box.from_bounds((0.0, 1.0), x))
    best = find_least_flat_point(
        nn.Identity(), Criterion(loss), x, x, ball=ball, settings=settings, start=x
    )
    # For p = 1 the dual vector sits on the largest entry alone, and so does the curvature.
    torch.testing.assert_close(best.point, x + x.new_tensor([[0.0, 0.1 if p == 2 else 0.0]]))


@pytest.mark.parametrize("p", NORMS)
def test_eps_zero_is_the_gradient_norm(smooth: Network, batch: Batch, p: float) -> None:
    model, (x, y) = smooth(), batch(9, 6)
    found = local_flatness(model, x, y, eps=0, norm=p, batch_size=4)
    torch.testing.assert_close(found, gradient_norm(model, x, y, p))
