"""Each penalty against its formula, written here with plain autograd on a smooth network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
import torch
from lfr_testing import SquaredLogits, input_gradient, weight_gradient
from torch import Tensor, nn
from torch.nn import functional

from art_lfr import LFRLoss, lfr_loss
from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.settings import LFRSettings
from art_lfr.loss import start_of
from art_lfr.penalties import (
    PENALTIES,
    Cure,
    GradAlign,
    InputGradient,
    LocalFlatness,
    LocalLinearity,
    LossView,
    Part,
    Penalty,
    penalty_for,
)

EPS = 0.1
Problem: TypeAlias = "tuple[nn.Module, Tensor, Tensor]"


def searched(penalty: Penalty, view: LossView, x: Tensor, y: Tensor) -> Any:
    start = penalty.start(view.ball, x, torch.Generator().manual_seed(0))
    return penalty.search(view, x, y, start)


@pytest.fixture
def problem() -> Problem:
    """A smooth network in float64, whose every derivative exists, with inputs inside the box."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).double())
    x = 0.3 + 0.4 * torch.rand(5, 1, 2, 3, generator=generator).double()
    return network, x, torch.tensor([0, 1, 2, 0, 1])


def losses(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(network(x), y, reduction="none")


def slope(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """grad_x of each sample's loss, flat, with a graph."""
    return input_gradient(network, x, y, create_graph=True).flatten(1)


def check_same(network: nn.Module, found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Values per sample, and the gradient in the weights of their sum."""
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        weight_gradient(network, found.sum()),
        weight_gradient(network, expected.sum()),
        rtol=tolerance,
        atol=tolerance,
    )


@pytest.mark.parametrize(("norm", "q"), [(math.inf, 1), (2, 2), (1, math.inf)])
@pytest.mark.parametrize("estimator", ["exact", "finite-difference"])
def test_input_gradient_is_the_dual_norm_at_x(
    problem: Problem, norm: float, q: float, estimator: str
) -> None:
    network, x, y = problem
    settings = LFRSettings(eps=EPS, norm=norm, estimator=estimator, radius=1e-5)
    found = InputGradient().values(network, x, y, settings=settings)
    expected = torch.linalg.vector_norm(slope(network, x, y), ord=q, dim=1)
    check_same(network, found, expected, 1e-6)


@pytest.mark.parametrize("estimator", ["exact", "finite-difference"])
def test_local_flatness_is_the_dual_norm_at_the_point_found(
    problem: Problem, estimator: str
) -> None:
    network, x, y = problem
    settings = LFRSettings(eps=EPS, estimator=estimator, radius=1e-5)
    view = LossView(network, Criterion(None), Box.from_bounds((0.0, 1.0), x), settings)
    point = searched(LocalFlatness(), view, x, y).point
    found = LocalFlatness().values(network, x, y, settings=settings)
    check_same(network, found, slope(network, point, y).abs().sum(dim=1), 1e-6)
    assert (found > InputGradient().values(network, x, y, settings=settings)).all()


@pytest.mark.parametrize("part", [0.0, 0.25, 1.0])
def test_held_lower_end_counts_in_the_value_and_pulls_by_its_part(
    problem: Problem, part: float
) -> None:
    network, x, y = problem
    h = 0.05
    settings = LFRSettings(eps=EPS, radius=h)
    view = LossView(network, Criterion(None), Box.from_bounds((0.0, 1.0), x), settings)
    point = searched(LocalFlatness(), view, x, y).point
    shift = h * slope(network, point, y).detach().sign().reshape(x.shape)
    upper, lower = losses(network, point + shift, y), losses(network, point - shift, y)
    found = LocalFlatness(minus_weight=part).values(network, x, y, settings=settings)
    torch.testing.assert_close(found, (upper - lower) / (2 * h))
    pulled = ((upper - part * lower) / (2 * h)).sum()
    torch.testing.assert_close(
        weight_gradient(network, found.sum()), weight_gradient(network, pulled)
    )


@pytest.mark.parametrize("p", [math.inf, 2.0])
def test_local_flatness_starts_in_the_ball_where_it_is_told_to(problem: Problem, p: float) -> None:
    network, x, y = problem
    box = Box.from_bounds((0.0, 1.0), x)
    ball = Ball(EPS, p, box)
    settings = LFRSettings(eps=EPS, norm=p, steps=0)
    ends = x + torch.linspace(0.0, 1.0, 6).double().view(1, 2, 3)
    ends[0] = math.nan  # no such point
    view = LossView(network, Criterion(), box, settings)
    start = start_of(view, LocalFlatness(), x, torch.Generator().manual_seed(0), ends)
    point = LocalFlatness().search(view, x, y, start).point
    assert torch.equal(point[1:], ball.project(ends, x)[1:])
    beside = ball.start_point(x, torch.Generator().manual_seed(0))
    assert torch.equal(point[0], beside[0])


@pytest.mark.parametrize("part", [-0.1, 1.1])
def test_minus_weight_is_a_part(part: float) -> None:
    with pytest.raises(ValueError, match=f"minus_weight is {part}"):
        LocalFlatness(minus_weight=part)


def test_cure_is_the_squared_change_of_the_gradient(problem: Problem) -> None:
    network, x, y = problem
    h = 0.05
    found = Cure().values(network, x, y, settings=LFRSettings(eps=EPS, radius=h))
    g = slope(network, x, y)
    z = g.detach().sign() / math.sqrt(6)
    moved = slope(network, x + h * z.reshape(x.shape), y)
    check_same(network, found, ((moved - g) ** 2).sum(dim=1), 1e-9)


def test_cure_of_a_linear_loss_is_zero() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    x, y = torch.rand(3, 4).double(), torch.tensor([0, 1, 1])
    found = Cure().values(
        network,
        x,
        y,
        settings=LFRSettings(eps=EPS),
        loss=lambda outputs, labels: outputs.gather(1, labels[:, None])[:, 0],
    )
    assert found.abs().max() < 1e-20


def test_llr_is_gap_and_slope_at_the_worst_point(problem: Problem) -> None:
    network, x, y = problem
    settings = LFRSettings(eps=EPS, steps=8)
    penalty = LocalLinearity(mu=0.5)
    view = LossView(network, Criterion(None), Box.from_bounds((0.0, 1.0), x), settings)
    point = searched(penalty, view, x, y)
    found = penalty.values(network, x, y, settings=settings)
    linear = ((point - x).flatten(1) * slope(network, x, y)).sum(dim=1)
    gap = (losses(network, point, y) - losses(network, x, y) - linear).abs()
    check_same(network, found, gap + 0.5 * linear.abs(), 1e-9)


def test_llr_search_beats_random_points_of_the_ball(problem: Problem) -> None:
    network, x, y = problem
    settings = LFRSettings(eps=EPS, steps=10)
    box = Box.from_bounds((0.0, 1.0), x)
    view = LossView(network, Criterion(None), box, settings)
    generator = torch.Generator().manual_seed(0)
    point = searched(LocalLinearity(), view, x, y)
    ball = Ball(EPS, math.inf, box)

    def gap(at: Tensor) -> Tensor:
        linear = ((at - x).flatten(1) * slope(network, x, y)).sum(dim=1)
        return (losses(network, at, y) - losses(network, x, y) - linear).abs().detach()

    assert ((point - x).abs() <= EPS + 1e-9).all()
    drawn = torch.stack([gap(ball.random_point(x, generator)) for _ in range(50)])
    assert (gap(point) >= drawn.quantile(0.95, dim=0)).all()


def test_gradalign_is_one_minus_the_cosine(problem: Problem) -> None:
    network, x, y = problem
    settings = LFRSettings(eps=EPS)
    box = Box.from_bounds((0.0, 1.0), x)
    noisy = Ball(EPS, math.inf, box).random_point(x, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    found = GradAlign().values(network, x, y, settings=settings, generator=generator)
    a, b = slope(network, x, y), slope(network, noisy, y)
    expected = 1 - (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    check_same(network, found, expected, 1e-9)


def test_gradalign_of_a_constant_loss_is_zero_with_finite_gradients() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    nn.init.zeros_(network[1].weight)
    x, y = torch.rand(2, 4), torch.tensor([0, 1])
    found = GradAlign().values(network, x, y, settings=LFRSettings(eps=EPS))
    found.sum().backward()
    assert (found == 0).all()
    assert torch.isfinite(network[1].weight.grad).all()


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_loss_takes_every_penalty_and_adds_it_with_its_weight(problem: Problem, name: str) -> None:
    network, x, y = problem
    lam = 0.7 if PENALTIES[name].weighted else None
    terms = lfr_loss(network, x, y, eps=EPS, lam=lam, penalty=name)
    values = PENALTIES[name].values(network, x, y, settings=LFRSettings(eps=EPS, lam=lam))
    torch.testing.assert_close(terms.flatness, values.mean(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(terms.total, terms.clean + (lam or 1.0) * terms.flatness)


@pytest.mark.parametrize("norm", [math.inf, 2, 1])
def test_adversarial_training_is_the_loss_at_the_example(problem: Problem, norm: float) -> None:
    network, x, y = problem
    loss = LFRLoss(eps=EPS, norm=norm, steps=3, step_size=0.05, penalty="adversarial-training")
    terms = loss(network, x, y)
    assert loss.settings.lam == 1.0
    # The same ascent written here: from the same random point, by the gradient of the loss.
    ball = Ball(EPS, float(norm), Box.from_bounds((0.0, 1.0), x))
    point = ball.random_point(x, torch.Generator().manual_seed(0))
    for _ in range(3):
        point = ball.ascend(point, slope(network, point, y).detach().view_as(x), x, 0.05)
    check_same(network, terms.total.view(1), losses(network, point, y).mean().view(1), 1e-9)
    assert float(terms.total) > float(losses(network, x, y).mean())


def test_trades_is_the_divergence_of_both_outputs(problem: Problem) -> None:
    network, x, y = problem
    terms = lfr_loss(network, x, y, eps=EPS, steps=3, step_size=0.05, lam=6.0, penalty="trades")
    # Zhang et al.: KL(f(x) || f(x')), ascended from beside x, with the gradient through both.
    clean = network(x).softmax(dim=1).detach()

    def divergence(outputs: Tensor, p: Tensor) -> Tensor:
        return (p * (p.log() - outputs.log_softmax(dim=1))).sum(dim=1)

    ball = Ball(EPS, math.inf, Box.from_bounds((0.0, 1.0), x))
    point = ball.start_point(x, torch.Generator().manual_seed(0))
    for _ in range(3):
        point = point.detach().requires_grad_(True)
        (up,) = torch.autograd.grad(divergence(network(point), clean).sum(), point)
        point = ball.ascend(point.detach(), up, x, 0.05)
    gap = divergence(network(point), network(x).softmax(dim=1))
    expected = losses(network, x, y).mean() + 6.0 * gap.mean()
    check_same(network, terms.total.view(1), expected.view(1), 1e-9)
    assert float(terms.flatness) > 0


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_are_finite_where_probabilities_are_rounded_to_0(
    problem: Problem, name: str
) -> None:
    """As the small CNN's were early in training on MNIST: its logits were hundreds apart."""
    network, x, y = problem
    network, x = network.float(), x.float()
    with torch.no_grad():
        for parameter in network[-1].parameters():
            parameter.mul_(1000.0)
    assert bool((network(x).softmax(dim=1) == 0).any())
    lam = {} if name == "adversarial-training" else {"lam": 1.0}
    lfr_loss(network, x, y, eps=EPS, steps=2, penalty=name, **lam).total.backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("name", PENALTIES)
def test_class_weights_count_as_in_the_loss(problem: Problem, name: str) -> None:
    """A mean over weights: ten times all of them is the same, and weight 0 does not count."""
    network, x, y = problem
    lam = {} if name == "adversarial-training" else {"lam": 1.0}

    def value(weights: list[float], x: Tensor, y: Tensor) -> float:
        loss = nn.CrossEntropyLoss(weight=torch.tensor(weights).double())
        terms = lfr_loss(network, x, y, eps=EPS, steps=2, penalty=name, loss=loss, **lam)
        return float(terms.flatness.detach())

    equal = value([1.0, 1.0, 1.0], x, y)
    assert value([10.0, 10.0, 10.0], x, y) == pytest.approx(equal, rel=1e-6)
    assert equal == pytest.approx(value_of(network, x, y, name, lam), rel=1e-6)
    other = x.clone()
    other[y == 2] = 1 - other[y == 2]
    first = value([1.0, 2.0, 0.0], x, y)
    assert value([1.0, 2.0, 0.0], other, y) == pytest.approx(first, rel=1e-6)


def value_of(network: nn.Module, x: Tensor, y: Tensor, name: str, lam: Any) -> float:
    terms = lfr_loss(network, x, y, eps=EPS, steps=2, penalty=name, **lam)
    return float(terms.flatness.detach())


def test_trades_needs_classes() -> None:
    network, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), torch.rand(4, 1, 2, 3)
    y = torch.ones(4, 1)
    with pytest.raises(ValueError, match=r"penalty is 'trades'.* outputs of shape \(4, 1\)"):
        lfr_loss(network, x, y, eps=0.1, lam=6.0, penalty="trades", loss=nn.BCEWithLogitsLoss())


def test_loss_takes_a_penalty_of_the_users_own(problem: Problem) -> None:
    network, x, y = problem
    terms = lfr_loss(network, x, y, eps=EPS, lam=2.0, penalty=SquaredLogits())
    torch.testing.assert_close(terms.flatness, network(x).square().sum(dim=1).mean())


def test_names_and_weights_are_checked() -> None:
    with pytest.raises(ValueError, match="penalty is 'lrf'"):
        penalty_for("lrf", {"lam": 0.1})
    with pytest.raises(TypeError, match="penalty is 3"):
        penalty_for(3, {"lam": 0.1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lam is None with penalty 'cure'"):
        penalty_for("cure", {})
    with pytest.raises(ValueError, match=r"lam is 0.5 with penalty 'adversarial-training', which"):
        penalty_for("adversarial-training", {"lam": 0.5})
    with pytest.raises(ValueError, match="mu is -1"):
        LocalLinearity(mu=-1)
    assert penalty_for("input-gradient", {}) == InputGradient()


@pytest.mark.parametrize("option", ["autocast", "warm_start"])
def test_an_option_of_the_ascent_needs_a_penalty_that_has_it(option: str) -> None:
    for name, penalty in PENALTIES.items():
        lam = 1.0 if penalty.weighted else None
        if name.startswith("lfr") or name in ("adversarial-training", "trades"):
            assert penalty_for(name, {"lam": lam, option: True}) is penalty
        else:
            with pytest.raises(ValueError, match=f"{option} is True with penalty '{name}'"):
                penalty_for(name, {"lam": lam, option: True})
    with pytest.raises(ValueError, match=f"{option} is True with penalty .*SquaredLogits"):
        penalty_for(SquaredLogits(), {"lam": 1.0, option: True})


def test_the_exact_estimator_has_no_lower_end_to_hold() -> None:
    with pytest.raises(ValueError, match="estimator is 'exact' with penalty 'lfr-held'"):
        LFRLoss(eps=EPS, penalty="lfr-held", estimator="exact")
    assert LFRLoss(eps=EPS, estimator="exact").penalty == LocalFlatness()


def test_a_penalty_of_the_users_own_is_known_again() -> None:
    class Weighted(SquaredLogits):
        def __init__(self, weight: float, of: Tensor) -> None:
            self.weight, self.of = weight, of

    first, same, other = (Weighted(w, torch.ones(2)) for w in (1.0, 1.0, 2.0))
    assert repr(first) == repr(same) != repr(other)
    assert "Weighted" in repr(first)
    assert repr(SquaredLogits()) == repr(SquaredLogits())


def test_the_loss_refuses_bfloat16_for_a_penalty_without_an_ascent() -> None:
    with pytest.raises(ValueError, match="autocast is True with penalty 'cure'"):
        LFRLoss(eps=EPS, lam=1.0, penalty="cure", autocast=True)


class Misshapen(Penalty):
    """A penalty of a user's own that gives the mean in place of a value for each sample."""

    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        yield Part(1.0, view.losses(x, y).mean())


class Misplaced(InputGradient):
    """One that draws a number for each sample where points of the ball are wanted."""

    def start(self, ball: Ball, x: Tensor, generator: torch.Generator) -> Tensor:  # type: ignore[override]
        return torch.rand(len(x), generator=generator)


@pytest.mark.parametrize(
    ("penalty", "says"),
    [
        (Misshapen(), r"Misshapen gives values of shape \(\) for 5 samples; allowed: one for each"),
        (Misplaced(), r"Misplaced starts at points of shape \(5,\); allowed: .*\(5, 1, 2, 3\)"),
    ],
)
def test_shapes_of_a_penalty_of_ones_own(problem: Problem, penalty: Penalty, says: str) -> None:
    network, x, y = problem
    with pytest.raises(ValueError, match=says):
        lfr_loss(network, x, y, eps=EPS, lam=1.0, penalty=penalty)
