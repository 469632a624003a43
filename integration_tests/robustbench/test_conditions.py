"""RobustBench's three conditions: models that break one each, and what is left as found."""

from __future__ import annotations

import pytest
import torch
from lfr_testing import classifier_around
from torch import nn

try:
    from art_lfr.robustbench import check_conditions
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported: {error}", allow_module_level=True)


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def through(net, function):
    return nn.Sequential(Layer(function), net())


def optimised(x):
    """Moves the input along a gradient, as purification does."""
    from torch.autograd import grad

    with torch.enable_grad():
        point = x.detach().clone().requires_grad_(True)
        (gradient,) = grad(point.square().sum(), point)
    return x - 0.01 * gradient


def test_a_sound_model(net, data):
    found = check_conditions(nn.Sequential(net(), nn.Dropout(0.5)).train(), data[0])
    assert found.passed
    assert found.findings == ()
    assert str(found).splitlines() == [
        "non-zero input gradients: yes",
        "deterministic forward pass: yes",
        "no optimisation loop in the forward pass: yes",
    ]


@pytest.mark.parametrize(
    ("function", "failing", "layer", "problem"),
    [
        (lambda x: (x * 8).round() / 8, "gradients", "0 (Layer)", "16 of 16 samples: the gradient"),
        (lambda x: x.detach(), "gradients", "0 (Layer)", "cut off from its input"),
        (lambda x: x + 0.1 * torch.randn_like(x), "deterministic", "0 (Layer)", "passes on the"),
        (optimised, "no_optimization", "model", "computes gradients"),
    ],
)
def test_each_condition(net, data, function, failing, layer, problem):
    found = check_conditions(through(net, function), data[0])
    for name in ("gradients", "deterministic", "no_optimization"):
        assert getattr(found, name) == (name != failing), name
    assert not found.passed
    assert [finding.layer for finding in found.findings] == [layer]
    assert problem in found.findings[0].problem
    assert found.findings[0].severity == "error"
    assert str(found).count("NO") == 1


def test_a_loop_that_runs_only_where_gradients_are_on(net, data):
    def sometimes(x):
        return optimised(x) if torch.is_grad_enabled() else x

    with torch.no_grad():
        assert not check_conditions(through(net, sometimes), data[0]).no_optimization


def test_randomness_that_is_not_torchs(net, data):
    """A model that counts its calls draws from no generator, and no layer is to blame."""
    calls = []

    def wander(x):
        calls.append(1)
        return x + 0.05 * len(calls)

    found = check_conditions(through(net, wander), data[0])
    assert not found.deterministic
    assert [finding.layer for finding in found.findings] == ["model"]


def test_logits_that_differ_without_changing_labels(net, data):
    found = check_conditions(through(net, lambda x: x + 1e-3 * torch.randn_like(x)), data[0])
    assert not found.deterministic
    assert "scaled logits by" in found.findings[0].problem
    assert check_conditions(through(net, lambda x: x + 1e-7 * torch.randn_like(x)), data[0]).passed


def test_a_few_zero_gradients_are_a_warning(net, data):
    x = data[0].clone()
    x[0] = 0.0

    def dead(x):
        return torch.where(x.flatten(1).amax(dim=1).gt(0).view(-1, 1, 1, 1), x, x.detach())

    found = check_conditions(through(net, dead), x)
    assert found.passed
    assert [f.severity for f in found.findings] == ["warning"]
    assert "zero for 1 of 16 samples" in found.findings[0].problem
    x[:2] = 0.0
    assert not check_conditions(through(net, dead), x).gradients
    assert check_conditions(through(net, dead), x.flip(0), samples=10).findings == ()


def test_a_classifier(net, data):
    classifier = classifier_around(through(net, torch.round), (3, 32, 32), 10)
    assert not check_conditions(classifier, data[0].numpy()).gradients


class Adapting(nn.Module):
    """Takes a step of its weights in each forward pass, as test-time adaptation does."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def forward(self, x):
        with torch.enable_grad():
            self.optimizer.zero_grad()
            self.network(x.detach()).logsumexp(dim=1).sum().backward()
        self.optimizer.step()
        return self.network(x)


def test_everything_is_left_as_found(net, data):
    model = Adapting(net())
    model.train()
    model.network.layers[1].eval()
    weight, x = model.network.layers[0].weight, data[0].clone()
    value = weight.detach().clone()
    weight.grad = gradient = torch.ones_like(weight)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = check_conditions(model, x)
    assert not found.no_optimization
    assert not found.deterministic
    assert torch.equal(weight, value)
    assert weight.requires_grad
    assert weight.grad is gradient
    assert bool((gradient == 1).all())
    assert (model.training, model.network.layers[1].training) == (True, False)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, data[0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"samples": 0}, ValueError, "samples is 0"),
        ({"x": torch.zeros(4, 3, 32, 32, dtype=torch.uint8)}, ValueError, "x has dtype"),
        ({"x": torch.zeros(0, 3, 32, 32)}, ValueError, "x has shape"),
        ({"x": None}, TypeError, "x is a NoneType"),
        ({"model": 3}, TypeError, "model is a int"),
    ],
)
def test_bad_arguments(net, data, change, error, message):
    with pytest.raises(error, match=message):
        check_conditions(**{"model": net(), "x": data[0], **change})
