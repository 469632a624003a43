"""Functions (model, x, y) -> adversarial as attacks, those of adv_lib among them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from art_lfr import evaluate
from art_lfr.evaluation import AttackSpec


def sign_step(model, x, y, eps=0.1):
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    return (x + eps * gradient.sign()).detach().clamp(0, 1)


def of_adv_lib(model, inputs, labels, targeted=False, *, eps=0.1):
    """As adv_lib has them: for images in [0, 1]."""
    assert float(inputs.min()) >= 0
    assert float(inputs.max()) <= 1
    return sign_step(model, inputs, labels, eps)


of_adv_lib.__module__ = "adv_lib.attacks.fake"


class Object:
    def __init__(self, eps):
        self.eps = eps

    def __call__(self, model, x, y):
        return sign_step(model, x, y, self.eps)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).train()


@pytest.fixture
def data(model):
    x = torch.rand(30, 1, 4, 4)
    return x, model(x).argmax(1)


def test_all_forms_find_what_fgsm_finds(model, data):
    attacks = {
        "FGSM": "FGSM",
        "function": sign_step,
        "partial": partial(sign_step, eps=0.1),
        "lambda": lambda m, x, y: sign_step(m, x, y).numpy(),
        "object": Object(0.1),
        "adv_lib": of_adv_lib,
        "spec": AttackSpec(partial(of_adv_lib, eps=0.1), images=30),
    }
    found = evaluate(model, *data, eps=0.1, attacks=attacks, batch_size=7)
    expected = found.correct["FGSM"]
    assert 0 < expected.sum() < 30
    for name in attacks:
        np.testing.assert_array_equal(found.correct[name], expected)
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    listed = evaluate(model, *data, eps=0.1, attacks=[sign_step, partial(sign_step, eps=0.05)])
    assert [row.name for row in listed.rows[1:-1]] == ["sign_step", "sign_step 2"]
    assert evaluate(model, *data, eps=0.1, attacks=sign_step).rows[1].name == "sign_step"


def test_units_are_those_of_x_and_for_adv_lib_those_of_images(model, data):
    class Wide(nn.Module):
        def forward(self, x):
            return model(x / 255)

    def raw(m, x, y):
        assert float(x.max()) > 1
        return 255 * sign_step(lambda unit: m(255 * unit), x / 255, y)

    x, y = data
    attacks = {"FGSM": "FGSM", "raw": raw, "adv_lib": of_adv_lib}
    found = evaluate(Wide(), 255 * x, y, eps=25.5, bounds=(0, 255), attacks=attacks)
    np.testing.assert_array_equal(found.correct["raw"], found.correct["FGSM"])
    np.testing.assert_array_equal(found.correct["adv_lib"], found.correct["FGSM"])


def test_examples_outside_the_ball_do_not_count(model, data):
    far = evaluate(model, *data, eps=0.1, attacks={"far": partial(sign_step, eps=0.4)})
    assert far["far"].accuracy == 1.0
    assert far["far"].distance == pytest.approx(0.4, rel=1e-3)
    assert "far: median distance of the closest example 0.4" in str(far)
    spec = AttackSpec(partial(sign_step, eps=0.4), eps=0.4, norm=np.inf)
    assert evaluate(model, *data, eps=0.1, attacks={"far": spec})["far"].accuracy < 0.5


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda model: model, TypeError, "cannot be called with"),
        (lambda m, x, y: 3, TypeError, "returns a int"),
        (lambda m, x, y: x[:2], RuntimeError, r"returned shape \(2, 1, 4, 4\)"),
        (lambda m, x, y: x * torch.nan, RuntimeError, "returned NaN"),
        (lambda m, x, y: x + 3, RuntimeError, "outside the valid box"),
        (Object, TypeError, "attacks has the class Object; allowed: an instance"),
        (nn.Linear(16, 3), TypeError, "attacks has a Linear"),
    ],
)
def test_what_is_no_attack(model, data, function, error, message):
    with pytest.raises(error, match=message):
        evaluate(model, *data, eps=0.1, attacks=[function])


def test_a_finished_function_is_taken_over_only_by_the_same(model, data, tmp_path):
    def run(function):
        return evaluate(model, *data, eps=0.1, attacks={"f": function}, state_dir=tmp_path)

    first = run(partial(sign_step, eps=0.1))
    assert run(partial(sign_step, eps=0.1))["f"].seconds == first["f"].seconds
    others = [
        partial(sign_step, eps=0.05),
        sign_step,
        Object(0.1),
        lambda m, x, y: sign_step(m, x, y),
    ]
    for other in others:
        with pytest.raises(ValueError, match=r"but f\.attack\.pt in state_dir has"):
            run(other)


def test_examples_that_leave_the_ball_are_told():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x = torch.rand(24, 1, 4, 4)
    y = network(x).argmax(dim=1)
    far = evaluate(network, x, y, eps=0.1, attacks=[partial(sign_step, eps=0.9)])
    assert far.worst_case.accuracy == 1
    (note,) = (note for note in far.notes if "outside the ball" in note)
    assert "of its examples are taken for another class" in note
    near = evaluate(network, x, y, eps=0.9, attacks=[partial(sign_step, eps=0.9)])
    assert near.worst_case.accuracy < 1
    assert not any("outside the ball" in note for note in near.notes)
