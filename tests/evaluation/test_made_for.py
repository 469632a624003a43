"""An attack object is of the judged model where that is what it computes, and says so elsewhere."""

import copy
from types import SimpleNamespace

import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from lfr_testing import classifier_around
from torch import nn

from art_lfr import evaluate
from art_lfr.attacks.made_for import made_for_another
from art_lfr.attacks.target import make_target

SHAPE = (1, 4, 4)


class Around(nn.Module):
    """A network between two functions."""

    def __init__(self, network, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x):
        return self.after(self.network(self.before(x)))


def rounded(x):
    return torch.round(x * 16) / 16


def straight_through(x):
    return x + (rounded(x) - x).detach()


OTHERS = {
    "rounded": {"before": rounded},
    "straight through": {"before": straight_through},
    "no gradient": {"before": lambda x: x.detach()},
    "constant": {"after": lambda z: 0 * z},
    "scaled": {"after": lambda z: 3 * z},
    "fewer classes": {"after": lambda z: z[:, :2]},
    "not of these inputs": {"before": lambda x: x.reshape(-1, 3, 7, 11)},
}


@pytest.fixture
def network():
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(64, 3))


@pytest.fixture
def images():
    """Images on the grid that `rounded` leaves alone."""
    return rounded(torch.rand(6, *SHAPE)), torch.tensor([0, 1, 2] * 2)


def of_art(model, **keywords):
    return FastGradientMethod(classifier_around(model, SHAPE, 3, **keywords), eps=0.1)


@pytest.mark.parametrize("kind", OTHERS)
def test_a_wrapper_that_computes_something_else_is_another_model(network, images, kind):
    wrapper = Around(network, **OTHERS[kind])
    target = make_target(network, *images, eps=0.1)
    assert made_for_another(of_art(wrapper), "art", target)
    assert made_for_another(SimpleNamespace(model=wrapper), "function", target)
    if kind in ("rounded", "straight through"):
        target = make_target(Around(network, before=rounded), *images, eps=0.1)
        assert made_for_another(of_art(network), "art", target)
        assert made_for_another(of_art(Around(network, straight_through)), "art", target)


def test_the_same_in_other_clothes_is_the_judged_one(network, images):
    target = make_target(network, *images, eps=0.1)
    for model in (network, copy.deepcopy(network), Around(network), copy.deepcopy(network).train()):
        assert not made_for_another(of_art(model), "art", target)
        assert not made_for_another(SimpleNamespace(model=model), "function", target)
    shifted = Around(network, before=lambda x: 2 * x + 0.5)
    assert made_for_another(of_art(shifted), "art", target)
    undone = of_art(Around(network, before=lambda x: 2 * x + 0.5), preprocessing=(0.5, 2.0))
    assert not made_for_another(undone, "art", target)
    assert made_for_another(of_art(network, preprocessing=(0.5, 2.0)), "art", target)


def test_everything_is_left_as_it_was(network, images):
    other = copy.deepcopy(network).train()
    other[4].weight.grad = torch.ones_like(other[4].weight)
    before, random = copy.deepcopy(other.state_dict()), torch.get_rng_state()
    made_for_another(of_art(other), "art", make_target(network, *images, eps=0.1))
    assert other.training
    assert all(part.training for part in other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert bool((other[4].weight.grad == 1).all())
    assert other[4].weight.requires_grad
    assert torch.equal(torch.get_rng_state(), random)


def test_the_table_says_so(network, images):
    judged = Around(network, before=rounded)
    attacks = {"own": of_art(judged), "surrogate": of_art(Around(network, straight_through))}
    found = evaluate(judged, *images, eps=0.1, attacks=attacks, flatness_steps=0)
    assert found["surrogate"].details["made_for"] == "another model"
    assert "made_for" not in found["own"].details
