"""Balls, dual vectors and projections against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from art_lfr.core.geometry import (
    Ball,
    Box,
    dual_norm,
    dual_vector,
    project_ball,
    sample_norm,
    steepest_direction,
)
from art_lfr.core.names import parse_norm

NORMS = (math.inf, 2.0, 1.0)
norms = st.sampled_from(NORMS)
shapes = st.sampled_from([(1, 1), (3, 7), (2, 250), (2, 5, 3), (2, 3, 4, 4)])
radii = st.floats(1e-6, 1e3)


def batches(bound: float = 1e6) -> st.SearchStrategy[Tensor]:
    """Small batches of hand-picked entries, and larger ones of rounded (so often tied) noise."""
    elements = st.floats(-bound, bound, allow_subnormal=True)
    small = st.sampled_from([(1, 1), (2, 4), (1, 3, 2), (1, 2, 2, 2)])
    picked = small.flatmap(lambda s: hnp.arrays(np.float64, s, elements=elements))

    def noise(shape: tuple[int, ...], seed: int, digits: int) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=shape).round(digits) * min(bound, 1e6) / 10

    drawn = st.builds(noise, shapes, st.integers(0, 2**31), st.integers(0, 9))
    return st.one_of(picked, drawn).map(torch.tensor)


@pytest.mark.parametrize("given_norm", [np.inf, "inf", 2, "2", 1, np.float64(1), np.int64(2)])
def test_norms_are_read(given_norm: object) -> None:
    p = parse_norm(given_norm)  # type: ignore[arg-type]
    assert p == float(given_norm)  # type: ignore[arg-type]
    q = dual_norm(p)
    assert (1 / p if p < math.inf else 0) + (1 / q if q < math.inf else 0) == 1


@pytest.mark.parametrize("bad", [3, 0.5, True, np.True_, None, "two", b"1", math.nan, [2], 10**400])
def test_other_norms_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"norm is .*; allowed: (np\.)?inf"):
        parse_norm(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e200])
def test_l2_dual_vector_of_extreme_gradients(size: float) -> None:
    s = dual_vector(size * torch.tensor([[3.0, -4.0]], dtype=torch.float64), 2.0)
    torch.testing.assert_close(
        s, torch.tensor([[0.6, -0.8]], dtype=torch.float64), rtol=1e-3, atol=0
    )


@given(batches(1e100), norms)
def test_dual_vector_attains_the_dual_norm(g: Tensor, p: float) -> None:
    s = dual_vector(g, p)
    assert s.shape == g.shape
    assert (sample_norm(s, p) <= 1 + 1e-12).all()
    torch.testing.assert_close((g * s).flatten(1).sum(1), sample_norm(g, dual_norm(p)))


@given(batches(1e100), norms)
def test_steepest_direction_ascends_within_the_unit_ball(u: Tensor, p: float) -> None:
    d = steepest_direction(u, p)
    assert (sample_norm(d, p) <= 1 + 1e-12).all()
    slope = (u * d).flatten(1).sum(1)
    assert ((slope > 0) == (sample_norm(u, math.inf) > 0)).all()
    if p != 1.0 or u[0].numel() <= 100:
        torch.testing.assert_close(slope, sample_norm(u, dual_norm(p)))


def test_l1_step_spreads_over_one_percent_of_the_coordinates() -> None:
    u = torch.arange(1.0, 401.0).reshape(1, 4, 100) * -1
    d = steepest_direction(u, 1.0).flatten()
    assert d.nonzero().flatten().tolist() == [396, 397, 398, 399]
    assert (d[-4:] == -0.25).all()


@given(batches(), radii, norms)
def test_projection_is_idempotent_and_feasible(v: Tensor, eps: float, p: float) -> None:
    once = project_ball(v, eps, p)
    assert (sample_norm(once, p) <= eps * (1 + 1e-9)).all()
    torch.testing.assert_close(project_ball(once, eps, p), once, rtol=1e-9, atol=1e-9 * eps)
    inside = sample_norm(v, p) <= eps
    assert torch.equal(once[inside], v[inside])


@given(batches(1e3), st.floats(1e-3, 1e3), norms)
def test_projection_is_the_nearest_point(v: Tensor, eps: float, p: float) -> None:
    # z is the projection on a convex set C just where <v - z, c - z> <= 0 for all c in C, and the
    # largest <v - z, c> over the ball is eps ||v - z||_q.
    z = project_ball(v, eps, p)
    off = v - z
    gap = eps * sample_norm(off, dual_norm(p)) - (off * z).flatten(1).sum(1)
    size = 1 + sample_norm(v, 2.0) ** 2
    assert (gap <= 1e-9 * size).all()


@pytest.mark.parametrize("eps", [0.1, 0.7, 2.0])
def test_l1_projection_against_brute_force(eps: float) -> None:
    v = torch.tensor([[0.9, -0.4, 0.05], [0.3, 0.3, -0.3], [2.0, 0.0, 0.0]], dtype=torch.float64)
    t = torch.linspace(-1, 1, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(t, t, t)
    grid = eps * grid[grid.abs().sum(dim=1) <= 1]
    best = ((v[:, None] - grid[None]) ** 2).sum(-1).amin(dim=1)
    ours = ((v - project_ball(v, eps, 1.0)) ** 2).sum(-1)
    assert (ours <= best + 1e-12).all()
    torch.testing.assert_close(ours, best, rtol=0, atol=0.1 * eps)


@pytest.mark.parametrize("length", [1e1, 1e3, 1e4])
def test_l1_projection_of_long_vectors_stays_in_a_small_ball(length: float) -> None:
    # In float32 the threshold alone would leave up to 17 % more than eps.
    v = length * torch.randn(20, 100)
    mass = project_ball(v, 0.01, 1.0).double().abs().sum(dim=1)
    assert (mass <= 0.01 * (1 + 1e-6)).all()


@given(shapes, norms, st.floats(1e-4, 10.0), st.integers(0, 2**31), st.booleans())
def test_points_lie_in_ball_and_box(
    shape: tuple[int, ...], p: float, eps: float, seed: int, per_feature: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    low, high = -1.0 - torch.rand(shape[1:], generator=generator).double(), 2.0
    box = Box.from_bounds((low if per_feature else -1.0, high), torch.empty(shape).double())
    x = box.low + (box.high - box.low) * torch.rand(shape, generator=generator).double()
    x = torch.where(torch.rand(shape, generator=generator) < 0.2, box.low.expand(shape), x)
    ball = Ball(eps, p, box)
    far = x + 10 * eps * torch.randn(shape, generator=generator).double()
    start = ball.start_point(x, generator)
    for point in (ball.project(far, x), start, ball.random_point(x, generator)):
        assert (sample_norm(point - x, p) <= eps * (1 + 1e-9) + 1e-12).all()
        assert ((point >= box.low) & (point <= box.high)).all()
    torch.testing.assert_close(ball.project(start, x), start, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0), (-1.0, 1.0), (2.0, 255.0), (-math.inf, 3.0)])
def test_start_noise_is_a_fraction_of_the_box(bounds: tuple[float, float] | None) -> None:
    low, high = bounds or (-math.inf, math.inf)
    width = high - low
    bounded = math.isfinite(width)
    eps = 0.2 * width if bounded else 0.2
    middle = (low + high) / 2 if bounded else 0.0
    x = torch.full((1_000_000, 1), middle, dtype=torch.float64)
    ball = Ball(eps, math.inf, Box.from_bounds(bounds, x))
    noise = ball.start_point(x, torch.Generator().manual_seed(0)) - x
    expected = 0.001 * width if bounded else 0.01 * eps
    assert float(noise.std()) == pytest.approx(expected, rel=0.003)


def test_start_noise_is_no_larger_than_eps() -> None:
    x = torch.full((50, 20), 0.5)
    for eps in (0.0, 1e-7):
        ball = Ball(eps, math.inf, Box.from_bounds((0.0, 255.0), x))
        noise = (ball.start_point(x.double(), None) - x).abs()
        assert float(noise.max()) <= eps * 1.01
        # Scaled down to eps before it is projected: not all of it lands on the ball's surface.
        assert float((noise < 0.99 * eps).double().mean()) > 0.5 or eps == 0


@pytest.mark.parametrize("p", NORMS)
def test_random_points_fill_the_ball_evenly(p: float) -> None:
    x = torch.zeros(20_000, 3, dtype=torch.float64)
    points = Ball(1.0, p, Box.from_bounds(None, x)).random_point(x, torch.Generator())
    # In three dimensions a ball of half the radius holds an eighth of the points.
    assert float((sample_norm(points, p) <= 0.5).double().mean()) == pytest.approx(1 / 8, abs=0.01)
    assert float(points.mean()) == pytest.approx(0.0, abs=0.02)
    assert float((points[:, 0] * points[:, 1] > 0).double().mean()) == pytest.approx(0.5, abs=0.02)
    # Of the cube, the ball and the octahedron, the share between the planes x = -0.1 and 0.1.
    share = {math.inf: 0.1, 2.0: 0.1495, 1.0: 0.271}[p]
    assert float((points[:, 0].abs() <= 0.1).double().mean()) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("p", NORMS)
def test_points_repeat_from_their_generator_alone(p: float) -> None:
    x = torch.full((5, 4), 0.5)
    ball = Ball(0.25, p, Box.from_bounds((0.0, 1.0), x))
    for draw in (ball.random_point, ball.start_point):
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(draw(x, torch.Generator().manual_seed(0)))
        assert torch.equal(*found)
        assert not torch.equal(found[0], draw(x, torch.Generator().manual_seed(1)))


def test_a_uniform_number_of_zero_makes_no_infinite_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("art_lfr.core.geometry.uniform_like", lambda x, _: torch.zeros_like(x))
    x = torch.full((5, 4), 0.5)
    assert bool(Ball(0.25, 1.0, Box.from_bounds(None, x)).random_point(x, None).isfinite().all())


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_points_are_finite(p: float, dtype: torch.dtype) -> None:
    # A uniform number in half precision is often exactly 0, and its logarithm infinite.
    x = torch.full((8, 2000), 0.5, dtype=dtype)
    ball = Ball(0.25, p, Box.from_bounds((0.0, 1.0), x))
    for point in (ball.random_point(x, None), ball.start_point(x, None), ball.project(x + 1, x)):
        assert point.dtype == dtype
        assert bool(point.isfinite().all())


def test_blocked_coordinates() -> None:
    x = torch.tensor([[0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0]])
    direction = torch.tensor([[-0.5, 0.0, 0.5, 0.5, 0.5, 0.0, -0.5]])
    blocked = Box.from_bounds((0.0, 1.0), x).blocked(x, direction)
    assert blocked.tolist() == [[True, False, False, False, True, False, False]]


def test_box_goes_to_a_device_as_a_whole() -> None:
    box = Box.from_bounds((0.0, 1.0), torch.empty(1, 1)).to(torch.device("meta"))
    assert box.low.is_meta
    assert box.high.is_meta


@pytest.mark.parametrize("bounds", [(0.0, math.inf), (-math.inf, 0.0), (-3.0, 0.0), (0.0, 3.0)])
def test_the_edge_belongs_to_the_box(bounds: tuple[float, float]) -> None:
    assert Box.from_bounds(bounds, torch.empty(1, 1)).contains(torch.zeros(2, 1))


def test_no_bounds_is_no_box() -> None:
    x = 1e9 * torch.randn(3, 4)
    box = Box.from_bounds(None, x).to(torch.device("cpu"))
    assert box.contains(x)
    assert torch.equal(box.clip(x), x)
