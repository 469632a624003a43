"""The objective: right values, right gradients in theta, usable in any loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lfr_testing import Divide, Recorder, input_gradient, weight_gradient
from torch import Tensor, nn
from torch.nn import functional as F

from art_lfr.core.criterion import Criterion
from art_lfr.core.flatness import find_least_flat_point
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.settings import LFRSettings
from art_lfr.loss import LFRLoss, lfr_loss, objective_terms
from art_lfr.measure import local_flatness
from art_lfr.penalties import LocalFlatness, LossView

NORMS = (math.inf, 2.0, 1.0)
ESTIMATORS = ("finite-difference", "exact")
Network = Callable[..., nn.Sequential]
Batch = Callable[..., tuple[Tensor, Tensor]]


def penalty(model: nn.Module, x: Tensor, y: Tensor, p: float) -> Tensor:
    """Mean of ||grad l(x)||_q by plain double back-propagation, written apart from the package."""
    rows = input_gradient(model, x, y, create_graph=True).flatten(1)
    norms = {math.inf: rows.abs().sum(1), 2.0: rows.norm(dim=1), 1.0: rows.abs().amax(1)}[p]
    return norms.mean()


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_theta_gradient_is_that_of_double_backpropagation(
    smooth: Network, batch: Batch, estimator: str, p: float
) -> None:
    model, (x, y) = smooth(), batch(8, 6)
    keywords: dict[str, Any] = {"eps": 0.1, "norm": p, "steps": 5, "estimator": estimator}
    keywords["radius"] = 1e-4
    ball = Ball(0.1, p, Box.from_bounds((0.0, 1.0), x))
    point = find_least_flat_point(
        model,
        Criterion(),
        x,
        y,
        ball=ball,
        settings=LFRSettings(**keywords),
        start=ball.start_point(x, torch.Generator().manual_seed(0)),
    ).point
    assert not torch.equal(point, x)
    expected = penalty(model, point, y, p)
    terms = lfr_loss(model, x, y, lam=0.5, **keywords)
    torch.testing.assert_close(terms.flatness, expected, rtol=1e-6, atol=0)
    ours = weight_gradient(model, terms.flatness)
    plain = weight_gradient(model, expected)
    assert float((ours - plain).norm() / plain.norm()) < 1e-3
    terms = lfr_loss(model, x, y, lam=0.5, **keywords)
    clean = F.cross_entropy(model(x), y)
    torch.testing.assert_close(terms.clean, clean)
    torch.testing.assert_close(terms.total, clean + 0.5 * expected, rtol=1e-6, atol=0)
    ours = weight_gradient(model, terms.total)
    plain = weight_gradient(model, clean + 0.5 * expected)
    assert float((ours - plain).norm() / plain.norm()) < 1e-3


@pytest.mark.parametrize("p", NORMS)
def test_exact_at_eps_zero_is_input_gradient_regularization(
    smooth: Network, batch: Batch, p: float
) -> None:
    model, (x, y) = smooth(), batch(8, 2, 3)
    expected = F.cross_entropy(model(x), y) + 0.3 * penalty(model, x, y, p)
    for steps in (0, 3):
        terms = lfr_loss(
            model, x, y, eps=0, lam=0.3, norm=p, estimator="exact", steps=steps, bounds=None
        )
        torch.testing.assert_close(terms.total, expected)
        ours = weight_gradient(model, terms.total)
        torch.testing.assert_close(ours, weight_gradient(model, expected))


@pytest.mark.parametrize("p", NORMS)
def test_finite_difference_is_within_five_percent_under_the_same_dropout_mask(
    smooth: Network, batch: Batch, p: float
) -> None:
    model, (x, y) = smooth(features=20, dropout=0.1).train(), batch(64, 20)
    values, states = [], []
    for estimator in ESTIMATORS:
        torch.manual_seed(5)
        keywords: dict[str, Any] = {"estimator": estimator, "radius": 1e-3, "norm": p}
        values.append(lfr_loss(model, x, y, eps=0, lam=1.0, **keywords))
        states.append(torch.get_rng_state())
    difference, exact = values
    torch.testing.assert_close(difference.flatness, exact.flatness, rtol=0.05, atol=0)
    torch.testing.assert_close(
        weight_gradient(model, difference.total),
        weight_gradient(model, exact.total),
        rtol=0.05,
        atol=0.01,
    )
    # Both leave torch's generator where one plain forward pass does, and see its mask.
    torch.manual_seed(5)
    x = x.requires_grad_(True)
    clean = F.cross_entropy(model(x), y, reduction="none")
    assert all(torch.equal(state, torch.get_rng_state()) for state in states)
    torch.testing.assert_close(exact.clean, clean.mean())
    (g,) = torch.autograd.grad(clean.sum(), x)
    masked = {math.inf: g.abs().sum(1), 2.0: g.norm(dim=1), 1.0: g.abs().amax(1)}[p].mean()
    torch.testing.assert_close(exact.flatness, masked)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_batch_norm_choice_governs_the_penalty(batch: Batch, estimator: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = batch(10, 6)
    model[1].running_var.fill_(0.01)
    found, expected = {}, {}
    for choice in ("eval", "train"):
        trial = copy.deepcopy(model)
        found[choice] = lfr_loss(
            trial, x, y, eps=0, lam=1, radius=1e-5, estimator=estimator, batch_norm=choice
        ).flatness
        trial[1].train(choice == "train")
        g = x.clone().requires_grad_(True)
        F.cross_entropy(trial(g), y, reduction="sum").backward()
        assert g.grad is not None
        expected[choice] = g.grad.abs().sum(dim=1).mean()
    assert float(expected["eval"]) < 0.8 * float(expected["train"])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


class Masks(nn.Module):
    """Dropout that keeps its masks: from torch's generator, or from NumPy's and Python's."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw = draw
        self.masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        self.masks.append(self.draw(x))
        return x * (self.masks[-1] > 0.1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("source", ["torch", "numpy", "python"])
def test_all_passes_see_the_masks_of_the_clean_one(
    batch: Batch, estimator: str, source: str
) -> None:
    import random

    import numpy as np

    draw = {
        "torch": torch.rand_like,
        "numpy": lambda x: torch.tensor(np.random.rand(*x.shape)),
        "python": lambda x: x.new_tensor([[random.random()] for _ in x]),
    }[source]
    masks = Masks(draw)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), masks, nn.Linear(8, 3)).double()
    x, y = batch(5, 6)
    loss = LFRLoss(eps=0.1, steps=2, estimator=estimator)
    loss(model, x, y)
    # clean, the gradient for the dual vector, plus and minus; or clean and its double.
    assert len(masks.masks) == (4 if estimator == "finite-difference" else 2)
    assert all(torch.equal(mask, masks.masks[0]) for mask in masks.masks)
    loss(model, x, y)
    assert not torch.equal(masks.masks[-1], masks.masks[0])


@pytest.mark.parametrize("lam", [0.0, 0.2])
def test_terms_are_the_clean_loss_and_the_parts_of_the_penalty(
    smooth: Network, batch: Batch, lam: float
) -> None:
    (x, y), model = batch(4, 6), Recorder(smooth())
    x_clean, settings = x + 0.5, LFRSettings(eps=0.1, lam=lam)
    view = LossView(model, Criterion(), Box.from_bounds((0.0, 1.0), x), settings)
    found = LocalFlatness().search(view, x, y, start=x)
    model.inputs.clear()
    clean, *parts = objective_terms(view, LocalFlatness(), x, y, found, x_clean=x_clean)
    torch.testing.assert_close(model.inputs[0], x_clean)
    assert clean.weight == 1.0
    torch.testing.assert_close(clean.value, F.cross_entropy(model(x_clean), y))
    torch.testing.assert_close(clean.outputs, model(x_clean))
    assert len(parts) == (2 if lam else 0)
    assert all(part.outputs is None for part in parts)
    if lam:
        # The slope between the ends of the step, over its length 2 h.
        assert [part.weight * 2 * settings.radius for part in parts] == [1.0, -1.0]
        # After the clean pass one in eval mode, since a class of its own may depend on its mode.
        ends = model.inputs[2:4]
        losses = [F.cross_entropy(model(end), y) for end in ends]
        torch.testing.assert_close([part.value for part in parts], losses)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_halves_of_a_batch_accumulate_to_the_whole(
    smooth: Network, batch: Batch, estimator: str
) -> None:
    # 8 x 16 normal numbers are the same, drawn in one call or in two.
    model, (x, y) = smooth(features=16), batch(16, 16)
    keywords: dict[str, Any] = {"eps": 0.1, "estimator": estimator, "steps": 3}
    LFRLoss(**keywords)(model, x, y).total.backward()
    whole = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    loss = LFRLoss(**keywords)
    for half in (slice(0, 8), slice(8, 16)):
        (loss(model, x[half], y[half]).total / 2).backward()
    halves = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(whole) == len(halves) == 6
    torch.testing.assert_close(halves, whole)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("unit", [255.0, 256.0])
def test_inputs_in_another_unit_give_the_same_weights(
    smooth: Network, batch: Batch, estimator: str, p: float, unit: float
) -> None:
    """x, eps and bounds times `unit`, divided by it in the first layer; all defaults left alone."""
    (x, y), network = batch(12, 1, 2, 3), smooth()
    low = 0.1 * x.amin(dim=0)
    trained = []
    for scale in (1.0, unit):
        model = nn.Sequential(Divide(scale), copy.deepcopy(network))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        loss = LFRLoss(
            eps=0.1 * scale, norm=p, estimator=estimator, bounds=(scale * low, scale), steps=4
        )
        for _ in range(5):
            optimizer.zero_grad()
            loss(model, scale * x, y).total.backward()
            optimizer.step()
        trained.append(torch.cat([w.detach().flatten() for w in model.parameters()]))
    start = torch.cat([w.detach().flatten() for w in network.parameters()])
    assert float((trained[0] - start).norm()) > 0.1
    # A power of two changes no rounding at all.
    torch.testing.assert_close(*trained, rtol=0 if unit == 256 else 1e-8, atol=0)


# Without its reward at the lower end, the penalty flattens less.
@pytest.mark.parametrize(("penalty", "share"), [("lfr", 0.7), ("lfr-held", 0.85)])
def test_training_lowers_the_flatness_it_penalises(
    smooth: Network, batch: Batch, penalty: str, share: float
) -> None:
    (x, y), network, after = batch(32, 6), smooth(), []
    for lam in (0.0, 0.3):
        model = copy.deepcopy(network)
        loss = LFRLoss(eps=0.05, lam=lam, steps=3, penalty=penalty)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        for _ in range(40):
            optimizer.zero_grad()
            loss(model, x, y).total.backward()
            optimizer.step()
        after.append(float(local_flatness(model, x, y, eps=0.05).mean()))
    assert after[1] < share * after[0]
