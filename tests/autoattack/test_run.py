"""AutoAttack: the protocol of pyautoattack to the bit, what it tells, and what it leaves alone."""

from __future__ import annotations

import math
import sys

import numpy as np
import pyautoattack
import pytest
import torch
from lfr_testing import classifier_around
from torch import nn

from art_lfr.attacks.target import UnitBox, make_target
from art_lfr.autoattack import attack_target, run_autoattack
from art_lfr.autoattack import run as autoattack
from art_lfr.autoattack.state import AttackState


def test_result(data, short, net, radii):
    x, y = data
    before = x.clone()
    found = run_autoattack(net(), x, y, eps=radii["Linf"], batch_size=8)
    assert list(found.accuracies) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert found.accuracies["clean"] == 15 / 18
    assert found.accuracies["square"] == found.accuracy == found.robust.mean() < 0.9
    assert list(found.seconds) == list(found.accuracies)[1:]
    assert min(found.seconds.values()) > 0
    assert (found.flags, found.version) == ([], "standard")
    assert found.backend == f"pyautoattack {pyautoattack.__version__}"
    with torch.no_grad():
        right = (net()(torch.as_tensor(found.adversarial)).argmax(dim=1) == y).numpy()
    np.testing.assert_array_equal(found.robust, right)
    moved = np.abs(found.adversarial - x.numpy()).reshape(18, -1).max(axis=1)
    assert (moved[:3] == 0).all()  # errors without an attack
    assert (moved[found.robust] == 0).all()
    assert (moved[3:][~found.robust[3:]] > 0).all()
    assert moved.max() <= radii["Linf"] * (1 + 1e-5)
    assert torch.equal(x, before)


@pytest.mark.parametrize("norm", [math.inf, 2])
def test_a_classifier_in_other_units_gives_the_same(data, short, norm, net, radii):
    """Pixels up to 255, an ART classifier with its own bounds, one-hot labels."""
    x, y = data
    eps = {math.inf: radii["Linf"], 2: radii["L2"]}[norm]
    expected = run_autoattack(net(), x, y, eps=eps, norm=norm)
    model = net(scale=255.0)
    classifier = classifier_around(model, (1, 8, 8), 10, clip_values=(0.0, 255.0))
    raw, one_hot = (255 * x).numpy(), np.eye(10)[y.numpy()]
    found = run_autoattack(classifier, raw, one_hot, eps=255 * eps, norm=norm)
    assert (found.robust != expected.robust).sum() <= 1
    # FAB stops just over the boundary: the example handed out must be over it too.
    with torch.no_grad():
        right = (model(torch.as_tensor(found.adversarial)).argmax(dim=1) == y).numpy()
    np.testing.assert_array_equal(found.robust, right)
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 255


def test_an_example_that_a_rounding_would_undo():
    """The map to [0, 1] and back rounds; a model at its boundary sees the difference."""
    low, width = 0.1, 0.7
    x = torch.linspace(0.15, 0.75, 50).view(50, 1, 1, 1).repeat(1, 1, 1, 2)

    class Exact(nn.Module):
        def forward(self, x):
            fooled = (x != raw[: len(x)])[:, 0, 0, 0].float()
            return torch.stack([fooled, 1 - fooled], dim=1)

    box = UnitBox(torch.tensor(low), width)
    x = x[(box.low + box.width * box.to_unit(x) != x)[:, 0, 0, 0]]
    assert len(x) > 3
    raw, y = x, torch.ones(len(x), dtype=torch.long)
    target = make_target(Exact(), x, y, eps=0.1, bounds=(low, low + width), batch_size=len(x))
    unit = box.to_unit(x)
    unit[:, :, :, 1] += 0.01
    yes, no = y.bool(), ~y.bool()
    state = AttackState(unit, 0 * y, clean=yes, robust=no, started=yes, accuracies={})
    found = autoattack._raw_examples(state, target, box)
    assert not target.correct(found, y).any()
    torch.testing.assert_close(found[:, :, :, 0], x[:, :, :, 0])


def test_everything_is_left_as_found(data, short, net):
    x, y = data
    model = nn.Sequential(net(), nn.Dropout(0.5))
    model.train()
    model[1].eval()
    weight, bias = model[0].layers[0].weight, model[0].layers[0].bias
    bias.requires_grad_(False)
    weight.grad = gradient = torch.ones_like(weight)
    torch.manual_seed(5)
    np.random.seed(5)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()

    def check():
        assert (model.training, model[0].training, model[1].training) == (True, True, False)
        assert (weight.requires_grad, bias.requires_grad) == (True, False)
        assert weight.grad is gradient
        assert bool((gradient == 1).all())
        assert torch.equal(torch.get_rng_state(), torch_state)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)

    run_autoattack(model, x[:8], y[:8], eps=0.02)
    check()
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) > 40:
            raise RuntimeError("in the middle")

    handle = model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        run_autoattack(model, x[:8], y[:8], eps=0.02)
    handle.remove()
    check()


def test_a_randomised_model_repeats(data, net, short):
    x, y = data
    model, found = net(noise=0.05), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(run_autoattack(model, x, y, eps=0.06, version="rand", batch_size=8))
    np.testing.assert_array_equal(found[0].adversarial, found[1].adversarial)
    assert found[0].accuracies == found[1].accuracies


def test_trace_and_profile_functions_survive(data, short, net):
    x, y = data

    def trace(*_):
        return None

    before = sys.gettrace(), sys.getprofile()
    try:
        sys.settrace(trace)
        sys.setprofile(trace)
        run_autoattack(net(), x[3:6], y[3:6], eps=0.5)
        found = sys.gettrace(), sys.getprofile()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    assert found == (trace, trace)


def probabilities(network, x):
    return network(x).softmax(dim=1)


def random(network, x):
    return network(x) + 0.01 * torch.randn(len(x), 10)


def dynamic(network, x):
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        torch.autograd.grad(point.square().sum(), point)
    return network(x)


def masked(network, x):
    """Rounded inputs: no gradient, and less robust than gradients say."""
    return network((x * 16).round() / 16)


class Through(nn.Module):
    """A network called by a function of it and its input."""

    def __init__(self, network, function):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x):
        return self.function(self.network, x)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (probabilities, "the output is a probability distribution"),
        (random, "it seems to be a randomized defense"),
        (dynamic, "it seems to be a dynamic defense"),
        (masked, "points with zero gradient"),
        (masked, "Square Attack has decreased the robust accuracy"),
    ],
)
def test_flags(data, net, short, function, told):
    x, y = data
    found = run_autoattack(Through(net(), function), x, y, eps=0.15, batch_size=18)
    assert any(told in flag for flag in found.flags), found.flags
    assert len(found.flags) == len(set(found.flags))
    if function is dynamic:  # a model that was flagged is not remembered
        assert run_autoattack(net(), x, y, eps=0.15, batch_size=18).flags == []


@pytest.mark.parametrize(
    ("classes", "version", "attacks", "told"),
    [
        (
            5,
            "standard",
            ["apgd-ce", "apgd-t", "fab-t", "square"],
            ["apgd-t used 4", "fab-t used 4"],
        ),
        (3, "standard", ["apgd-ce", "fab-t", "square"], ["only apgd-ce, fab-t, square", "used 2"]),
        (2, "standard", ["apgd-ce", "fab-t", "square"], ["the model has 2 classes", "used 1"]),
        (2, "rand", ["apgd-ce"], ["fewer than the loss of apgd-dlr"]),
        (3, "rand", ["apgd-ce", "apgd-dlr"], ["with only 3 classes"]),
    ],
)
def test_few_classes(data, short, classes, version, attacks, told, net):
    x = data[0]
    model = net(classes)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    found = run_autoattack(model, x, y, eps=0.01, version=version)
    assert list(found.accuracies) == ["clean", *attacks]
    assert len(found.flags) == len(told)
    assert all(part in flag for part, flag in zip(told, found.flags, strict=True)), found.flags


def test_logits_that_are_nan_count_as_wrong(data, net, short):
    x, y = data

    def broken(network, x):
        return network(x).masked_fill(x[:, 0, 0, :1] > 0.5, math.nan)

    found = run_autoattack(Through(net(), broken), x, 0 * y, eps=0.001)
    assert not found.robust[(x[:, 0, 0, 0] > 0.5).numpy()].any()


def test_no_sample_left_ends_the_run(data, short, net):
    x, y = data
    found = run_autoattack(net(), x[3:], y[3:], eps=0.5)
    assert found.accuracies == {"clean": 1.0, "apgd-ce": 0.0}
    found = run_autoattack(net(), x[:3], y[:3], eps=0.5)
    assert found.accuracies == {"clean": 0.0}
    np.testing.assert_array_equal(found.adversarial, x[:3].numpy())


def test_bars_are_shown_on_request_and_on_a_terminal(data, short, capsys, net, monkeypatch):
    x, y = data
    run_autoattack(net(), x[:9], y[:9], eps=0.02, batch_size=4, verbose=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run_autoattack(net(), x[:9], y[:9], eps=0.02, batch_size=4, verbose=True)
    output = capsys.readouterr()
    assert output.out == ""
    assert all(f"{name}: " in output.err for name in ("apgd-ce", "apgd-t", "fab-t", "square"))
    run_autoattack(net(), x[:9], y[:9], eps=0.02, batch_size=4)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"eps": 0}, ValueError, "eps is 0; allowed: a finite number > 0"),
        ({"norm": 3}, ValueError, "norm is 3"),
        ({"version": "standart"}, ValueError, "did you mean 'standard'"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"bounds": None}, ValueError, "AutoAttack needs finite bounds.*evaluate"),
        ({"bounds": (0.0, 0.5)}, ValueError, "x has values"),
        ({"x": torch.full((18, 64), 0.5), "model": nn.Linear(64, 10)}, ValueError, "Square needs"),
        ({"x": torch.full((18, 1, 4, 4), 0.5), "norm": 2}, ValueError, "4 x 4 pixels; allowed: at"),
        ({"y": torch.full((18,), 10)}, ValueError, "y has labels from 10 to 10; allowed: 0 to 9"),
        ({"state_path": "."}, ValueError, "state_path is '.'; allowed: a file"),
        ({"state_path": "no/such/file"}, ValueError, "state_path is 'no/such/file'"),
        ({"model": object()}, TypeError, "model is a object"),
    ],
)
def test_bad_arguments(data, change, error, message, net):
    x, y = data
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10)) if "x" in change else net()
    if "x" in change:
        model(change["x"])
    with pytest.raises(error, match=message):
        run_autoattack(**{"model": model, "x": x, "y": y, "eps": 0.1, **change})


def test_a_target_is_taken_as_it_is(data, short, net):
    x, y = data
    found = attack_target(make_target(net(), x, y, eps=0.02, batch_size=8))
    expected = run_autoattack(net(), x, y, eps=0.02, batch_size=8)
    np.testing.assert_array_equal(found.adversarial, expected.adversarial)
