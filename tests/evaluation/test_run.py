import json
import math
import warnings

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from lfr_testing import classifier_around
from torch import nn

from art_lfr import evaluate
from art_lfr.attacks.named import NamedAttack, run_attack
from art_lfr.attacks.target import ThreatModel, make_target
from art_lfr.evaluation.resolve import resolve_attacks

EPS = 0.01


class Logits(nn.Module):
    """Linear logits of images with values in [0, scale]."""

    def __init__(self, weight, scale=1.0):
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0])
        self.scale = scale
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(-weight.sum(dim=1) / 2)

    def forward(self, x):
        return self.linear((x / self.scale).flatten(1))


@pytest.fixture(scope="module")
def problem():
    """Five classes, linear, 6x6 images well inside the box; some samples are robust."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 36, generator=generator)
    x = 0.3 + 0.4 * torch.rand(40, 1, 6, 6, generator=generator)
    y = Logits(weight)(x).argmax(dim=1)
    y[:4] = (y[:4] + 1) % 5  # errors without any attack
    return weight, x, y


def make_classifier(model, **keywords):
    return classifier_around(model, (1, 6, 6), 5, **keywords)


def exact_robustness(weight, x, y, p):
    """Linear logits: robust where every margin exceeds eps * ||w_y - w_j||_q."""
    q = {math.inf: 1, 2: 2}[p]
    model = Logits(weight)
    with torch.no_grad():
        logits = model(x)
    differences = weight[y][:, None] - weight[None]
    margins = logits.gather(1, y[:, None]) - logits
    spread = torch.linalg.vector_norm(differences, ord=q, dim=2)
    eps = {math.inf: EPS, 2: 0.05}[p]
    margins = margins - eps * spread
    margins[torch.arange(len(y)), y] = math.inf
    return (margins > 0).all(dim=1).numpy(), eps


@pytest.mark.parametrize("p", [math.inf, 2])
def test_worst_case_of_a_linear_model_is_exact(problem, p):
    weight, x, y = problem
    robust, eps = exact_robustness(weight, x, y, p)
    assert 3 < robust.sum() < 33
    found = evaluate(
        Logits(weight), x, y, eps=eps, norm=p, attacks=["PGD-40", "APGD-T"], flatness_steps=1
    )
    worst = found.correct["worst case"]
    assert not (robust & ~worst).any()  # no attack may beat the truth
    assert (worst & ~robust).sum() <= 1  # and they find it


@pytest.fixture(scope="module")
def quick(problem):
    weight, x, y = problem
    return evaluate(Logits(weight), x, y, eps=EPS, seed=3)


def test_quick_rows_and_worst_case(problem, quick):
    assert [row.name for row in quick.rows] == ["clean", "PGD-40", "APGD-T", "Square", "worst case"]
    assert quick.clean.accuracy == 36 / 40
    expected = quick.correct["clean"].copy()
    for name in ("PGD-40", "APGD-T", "Square"):
        assert not quick.correct[name][:4].any()  # clean errors stay errors
        assert quick[name].accuracy == quick.correct[name].mean() < 0.9
        expected &= quick.correct[name]
    np.testing.assert_array_equal(quick.correct["worst case"], expected)
    assert quick.worst_case.accuracy == expected.mean()
    # A linear loss is at most as steep as the largest difference of its weights.
    weight = problem[0]
    steepest = (weight[:, None] - weight[None]).abs().sum(dim=2).max()
    assert 0 < quick.flatness.min() <= quick.flatness.max() <= steepest


def test_classifier_labels_and_array_kinds_agree(problem, quick):
    weight, x, y = problem
    classifier = make_classifier(Logits(weight))
    found = evaluate(classifier, x.numpy(), np.eye(5)[y.numpy()], eps=EPS, seed=3)
    for name, values in quick.correct.items():
        np.testing.assert_array_equal(found.correct[name], values, err_msg=name)
    np.testing.assert_allclose(found.flatness, quick.flatness, rtol=1e-5)


def test_scale_of_the_inputs_does_not_matter(problem, quick):
    weight, x, y = problem
    model = Logits(weight, scale=255.0)
    found = evaluate(model, 255 * x, y, eps=255 * EPS, bounds=(0.0, 255.0), seed=3)
    for name, values in quick.correct.items():
        assert (found.correct[name] != values).sum() <= 1, name
    np.testing.assert_allclose(255 * found.flatness, quick.flatness, rtol=1e-3)


@pytest.mark.parametrize("per_feature", [False, True])
def test_a_classifier_brings_its_own_bounds(problem, quick, per_feature):
    """clip_values in [0, 255], as numbers or for each feature: the same accuracies."""
    weight, x, y = problem
    high = np.full((1, 6, 6), 255.0, dtype=np.float32) if per_feature else 255.0
    classifier = make_classifier(Logits(weight, scale=255.0), clip_values=(0 * high, high))
    found = evaluate(classifier, (255 * x).numpy(), y.numpy(), eps=255 * EPS, seed=3)
    assert [row.accuracy for row in found.rows] == [row.accuracy for row in quick.rows]
    np.testing.assert_allclose(255 * found.flatness, quick.flatness, rtol=1e-3)


def test_preprocessing_is_inside_the_attacks(problem, quick):
    weight, x, y = problem
    mean, spread = 0.5, 0.25
    model = Logits(weight * spread)
    with torch.no_grad():
        model.linear.bias.copy_(weight.sum(dim=1) * (mean - 0.5))
    classifier = make_classifier(model, preprocessing=(mean, spread))
    found = evaluate(classifier, x.numpy(), y.numpy(), eps=EPS, seed=3)
    for name, values in quick.correct.items():
        assert (found.correct[name] != values).sum() <= 1, name


def test_everything_is_left_as_found(problem):
    weight, x, y = problem
    model = nn.Sequential(Logits(weight), nn.Dropout(0.5))
    model.train()
    model[1].eval()
    model[0].linear.bias.requires_grad_(False)
    gradient = torch.ones_like(weight)
    model[0].linear.weight.grad = gradient
    before = x.clone()
    torch.manual_seed(5)
    np.random.seed(5)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    evaluate(model, x[:8], y[:8], eps=EPS)
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
    assert model[0].linear.weight.requires_grad
    assert not model[0].linear.bias.requires_grad
    assert model[0].linear.weight.grad is gradient
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_art_attacks_by_name_and_mixed(problem):
    weight, x, y = problem
    classifier = make_classifier(Logits(weight))
    attack = FastGradientMethod(classifier, eps=EPS)
    named = evaluate(classifier, x.numpy(), y.numpy(), eps=EPS, attacks={"fgsm": attack})
    assert [row.name for row in named.rows] == ["clean", "fgsm", "worst case"]
    assert named["fgsm"].accuracy < named.clean.accuracy
    target = make_target(
        classifier,
        x.numpy(),
        y.numpy(),
        eps=EPS,
        batch_size=8,
    )
    mixed = resolve_attacks(["PGD-40", attack, attack], target)
    assert [a.name for a in mixed] == ["PGD-40", "FastGradientMethod", "FastGradientMethod 2"]
    quick = resolve_attacks("quick", target)
    assert [a.name for a in quick] == ["PGD-40", "APGD-T", "Square"]
    assert [a.black_box for a in quick] == [False, False, True]


@pytest.fixture
def target(problem):
    weight, x, y = problem
    model = Logits(weight)
    return make_target(model, x, y, eps=EPS, batch_size=16)


def run(attack, target, clean, **keywords):
    """The runner on a callable, in the ball of the target."""
    threat = ThreatModel(math.inf, EPS)
    return run_attack(NamedAttack("mine", attack, threat, **keywords), target, clean)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda x, y: x + 1.01 * EPS, "at distance"),
        (lambda x, y: x.index_fill(3, torch.tensor([0]), math.nan), "NaN"),
        (lambda x, y: x[:1], "shape"),
    ],
)
def test_infeasible_examples_are_refused(target, attack, message):
    with pytest.raises(RuntimeError, match=f"attack 'mine' returned.*{message}"):
        run(attack, target, target.correct(target.x, target.y))


def test_examples_outside_the_box_are_refused(problem):
    weight, x, y = problem
    target = make_target(Logits(weight), x * 0, y, eps=EPS, batch_size=16)
    with pytest.raises(RuntimeError, match="outside the valid box"):
        run(lambda x, y: x - EPS / 2, target, torch.ones(len(y), dtype=torch.bool))


def test_only_correct_samples_are_attacked(target):
    seen = []

    def attack(x, y):
        seen.append(len(x))
        return x

    clean = target.correct(target.x, target.y)
    survived = run(attack, target, clean).correct
    assert seen == [36]
    assert torch.equal(survived, clean)
    run(attack, target, torch.zeros_like(clean))
    assert seen == [36]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"eps": 0}, ValueError, "eps is 0; allowed: a finite number > 0"),
        ({"eps": "a"}, TypeError, "eps is 'a'"),
        ({"norm": 3}, ValueError, "norm is 3"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"flatness_steps": -1}, ValueError, "flatness_steps is -1"),
        ({"attacks": "pgd-41"}, ValueError, "did you mean 'PGD-40'"),
        ({"attacks": [3]}, TypeError, "attacks has a int"),
        ({"bounds": None}, ValueError, "APGD-T needs finite bounds.*another list of attacks"),
        ({"bounds": (0.0, 0.2)}, ValueError, "x has values"),
        ({"y": torch.full((40,), 5)}, ValueError, "y has labels from 5 to 5; allowed: 0 to 4"),
        ({"y": torch.zeros(3)}, ValueError, r"y has shape \(3,\)"),
        ({"x": torch.full((40, 1, 6, 6), math.nan)}, ValueError, "x holds NaN"),
        ({"model": object()}, TypeError, "model is a object"),
    ],
)
def test_bad_arguments(problem, change, error, message):
    weight, x, y = problem
    keywords = {"model": Logits(weight), "x": x, "y": y, "eps": EPS, **change}
    with pytest.raises(error, match=message):
        evaluate(**keywords)


def test_square_needs_images_and_apgd_t_four_classes():
    model = nn.Linear(5, 3)
    x, y = np.full((6, 5), 0.5, dtype=np.float32), np.zeros(6, dtype=int)
    with pytest.raises(ValueError, match=r"Square needs images.*PGD-40"):
        evaluate(model, x, y, eps=0.1)
    found = evaluate(model, x, y, eps=0.1, attacks=["APGD-T"], flatness_steps=0)
    assert [row.name for row in found.rows] == ["clean", "APGD-CE", "worst case"]


def test_targeted_attacks_are_refused(problem):
    weight, x, y = problem
    attack = FastGradientMethod(make_classifier(Logits(weight)), eps=EPS, targeted=True)
    with pytest.raises(ValueError, match="targeted True"):
        evaluate(Logits(weight), x, y, eps=EPS, attacks=attack)


def test_printed_forms(quick):
    frame = quick.to_frame()
    columns = ["name", "accuracy", "low", "high", "images", "seconds", "threat", "distance"]
    assert list(frame.columns) == columns
    assert frame.accuracy[0] == 0.9
    markdown = quick.to_markdown()
    assert "| clean" in markdown
    assert "90.0" in markdown
    assert "worst case" in str(quick)
    assert max(len(line) for line in str(quick).splitlines()) <= 100
    plain = json.loads(json.dumps(quick.to_dict()))
    assert plain["rows"][0]["accuracy"] == 0.9
    assert sum(plain["per_sample"]["correct"]["clean"]) == 36
    assert plain["flatness"]["mean"] == pytest.approx(quick.flatness.mean())
    with pytest.raises(KeyError, match="there are clean, PGD-40"):
        quick["pgd"]


def test_an_eps_in_another_unit_is_asked_about():
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), torch.rand(6, 1, 8, 8), [0, 1] * 3
    with pytest.warns(UserWarning, match=r"eps is 8, more than the whole range .* 0 to 1: is it"):
        evaluate(model, x, y, eps=8, attacks="FGSM", flatness_steps=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        evaluate(model, x, y, eps=1, attacks="FGSM", flatness_steps=0)
        evaluate(model, 255 * x, y, eps=8, bounds=(0, 255), attacks="FGSM", flatness_steps=0)
        evaluate(model, x, y, eps=0.001, attacks="FGSM", flatness_steps=0)
    with pytest.warns(UserWarning, match=r"eps is 0.1, less than a 255th of the whole range"):
        evaluate(model, 255 * x, y, eps=0.1, bounds=(0, 255), attacks="FGSM", flatness_steps=0)
