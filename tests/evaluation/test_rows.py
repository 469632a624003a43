"""Rows of their own threat model, fewer images, minimal attacks, saved and resumed evaluations."""

import json
import math

import numpy as np
import pytest
import torch
from art.attacks import EvasionAttack
from art.attacks.evasion import DeepFool, FastGradientMethod, ProjectedGradientDescent
from lfr_testing import classifier_around
from torch import nn

from art_lfr import evaluate, local_flatness
from art_lfr.attacks.named import AttackSpec
from art_lfr.attacks.target import ThreatModel

EPS = 0.1


class Mean(nn.Module):
    """Two classes by the mean of the image: class 1 above 0.5; two more that never win."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        z = self.scale * (x.flatten(1).mean(dim=1, keepdim=True) - 0.5)
        return torch.cat([-z, z, -100 + 0 * z, -100 + 0 * z], dim=1)


class Shift(EvasionAttack):
    """Adds a fixed amount to all values, away from or towards 0.5."""

    _estimator_requirements = ()

    def __init__(self, amount, count=None, **declared):
        super().__init__(estimator=None)
        self.amount, self.count, self._calls = amount, count, 0
        vars(self).update(declared)

    def generate(self, x, y=None, **kwargs):
        self._calls += 1
        direction = np.where(np.argmax(y, axis=1) == 1, -1.0, 1.0).reshape(-1, 1, 1, 1)
        change = np.zeros_like(x) + direction * self.amount
        if self.count is not None:
            change.reshape(len(x), -1)[:, self.count :] = 0
        return np.clip(x + change, 0, 1).astype(np.float32)


def make_classifier(model, **keywords):
    return classifier_around(model, (1, 4, 4), 4, **keywords)


@pytest.fixture
def problem():
    """Constant images at distances 0.02, 0.06, ... from the boundary, one in three an error."""
    distance = torch.arange(12) * 0.04 + 0.02
    side = torch.arange(12) % 2
    x = 0.5 + torch.where(side == 1, distance, -distance)
    y = side.clone()
    y[::3] = 1 - y[::3]
    return Mean(), x.reshape(-1, 1, 1, 1).repeat(1, 1, 4, 4), y, distance


def test_threat_models_measure_and_name():
    x = torch.zeros(2, 1, 2, 2)
    moved = x.clone()
    moved[0, 0, 0] = torch.tensor([3.0, 4.0])
    for p, distance in ((math.inf, 4), (2, 5), (1, 7), (0, 2)):
        threat = ThreatModel(p, distance)
        assert threat.distance(moved, x).tolist() == [distance, 0]
        assert threat.contains(moved, x).tolist() == [True, True]
        assert ThreatModel(p, 0.99 * distance).contains(moved, x).tolist() == [False, True]
    assert [ThreatModel(p, 0.3).label for p in (math.inf, 2, 0)] == ["Linf 0.3", "L2 0.3", "L0 0.3"]
    with pytest.raises(ValueError, match="norm is 3"):
        ThreatModel(3, 1)
    with pytest.raises(ValueError, match="eps is 0"):
        ThreatModel(2, 0)


def test_an_attack_without_a_budget_counts_where_its_example_lies_in_the_ball(problem):
    model, x, y, distance = problem
    right = model(x).argmax(dim=1) == y
    found = evaluate(model, x, y, eps=EPS, attacks=Shift(0.2), flatness_steps=0)
    # All examples lie at 0.2, outside the ball: none counts, though most are wrong there.
    assert found["Shift"].accuracy == found.clean.accuracy
    attacked = torch.where(distance < 0.2, 0.2, math.inf)[right]
    assert found["Shift"].distance == pytest.approx(float(attacked.median()))
    near = evaluate(model, x, y, eps=0.25, attacks=Shift(0.2), flatness_steps=0)
    expected = right & (distance > 0.2)
    np.testing.assert_array_equal(near.correct["Shift"], expected.numpy())
    assert near.worst_case.accuracy == near["Shift"].accuracy
    assert "median distance of the closest example" in str(near)


def test_a_declared_budget_is_held_to(problem):
    model, x, y, _ = problem
    with pytest.raises(RuntimeError, match=r"'Shift' returned an example at distance 0.2"):
        evaluate(model, x, y, eps=EPS, attacks=Shift(0.2, eps=EPS, norm=np.inf))
    with pytest.raises(ValueError, match=r"Shift with eps 0.2, in raw units, where eps is 0.1"):
        evaluate(model, x, y, eps=EPS, attacks=Shift(0.2, eps=0.2, norm="inf"))
    weaker = evaluate(model, x, y, eps=EPS, attacks=Shift(0.05, eps=0.05), flatness_steps=0)
    assert weaker["Shift"].threat == "Linf 0.1"


def test_other_norms_and_fewer_images_stay_out_of_the_worst_case(problem):
    model, x, y, distance = problem
    right = (model(x).argmax(dim=1) == y).numpy()
    attacks = {
        "linf": Shift(EPS, eps=EPS, norm=np.inf),
        "l2": Shift(0.25, eps=1.0, norm=2),  # 0.25 on 16 values: l2 norm 1
        "l0": AttackSpec(Shift(0.4, count=8), norm=0, eps=8),
        "first": AttackSpec(Shift(EPS, eps=EPS), images=5),
    }
    found = evaluate(model, x, y, eps=EPS, attacks=attacks, flatness_steps=0)
    assert [row.threat for row in found.rows[1:]] == [
        "Linf 0.1",
        "L2 1",
        "L0 8",
        "Linf 0.1",
        "Linf 0.1",
    ]
    assert [row.images for row in found.rows] == [12, 12, 12, 12, 5, 12]
    np.testing.assert_array_equal(found.correct["l2"], right & (distance > 0.25).numpy())
    np.testing.assert_array_equal(found.correct["l0"], right & (distance > 0.2).numpy())
    np.testing.assert_array_equal(found.correct["worst case"], found.correct["linf"])
    np.testing.assert_array_equal(found.correct["first"], found.correct["linf"][:5])
    assert found.worst_case.accuracy > found["l2"].accuracy
    text = str(found)
    assert "within" in text
    assert "worst case over linf: all images, the threat model of the evaluation" in text
    assert "no black-box attack is in the worst case" in text
    assert "L0 is the number of values that an attack changes" in text
    assert max(map(len, str(found).splitlines())) <= 80


def test_norms_of_attack_objects_are_read(problem):
    model, x, y, _ = problem
    classifier = make_classifier(model)
    attacks = [
        FastGradientMethod(classifier, norm=2, eps=0.4),
        DeepFool(classifier, max_iter=5, verbose=False),
        ProjectedGradientDescent(classifier, norm=1, eps=1.6, max_iter=3, verbose=False),
        "JSMA",
        "Square",
    ]
    found = evaluate(classifier, x.numpy(), y.numpy(), eps=EPS, attacks=attacks, flatness_steps=0)
    assert [row.threat for row in found.rows[1:]] == [
        "L2 0.4",
        "Linf 0.1",
        "L1 1.6",
        "L0 6",
        "Linf 0.1",
        "Linf 0.1",
    ]
    assert found["DeepFool"].distance is not None
    # L2 0.4 is 0.1 a value here, so the two find the same; JSMA is given no labels as targets.
    assert found["FastGradientMethod"].accuracy == found["Square"].accuracy
    assert found["JSMA"].accuracy < found.clean.accuracy
    assert not any("black-box" in note for note in found.notes)


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ({"clean": "PGD-40"}, "attacks has the name 'clean'"),
        ({"mine": "quick"}, "attacks\\['mine'\\] is the preset 'quick'"),
        (AttackSpec(Shift(0.1), norm=2), "norm 2 and no eps"),
        (AttackSpec(Shift(0.1), norm=5, eps=1), "norm is 5"),
        (AttackSpec("PGD-40", images=0), "images of an AttackSpec is 0"),
        (AttackSpec("PGD-40", eps=0.05), "AttackSpec with eps or norm around the name 'PGD-40'"),
    ],
)
def test_bad_attacks(problem, attacks, message):
    model, x, y, _ = problem
    with pytest.raises(ValueError, match=message):
        evaluate(model, x, y, eps=EPS, attacks=attacks)


def test_examples_are_saved(problem, tmp_path):
    model, x, y, _ = problem
    path = tmp_path / "examples.npz"
    attacks = {"a": Shift(EPS, eps=EPS), "b": AttackSpec(Shift(0.2), images=4)}
    found = evaluate(model, x, y, eps=EPS, attacks=attacks, save_adversarial=path)
    saved = np.load(path)
    assert sorted(saved) == ["a", "b", "x", "y"]
    np.testing.assert_array_equal(saved["x"], x.numpy())
    right = found.correct["clean"]
    np.testing.assert_allclose(np.abs(saved["a"] - saved["x"])[right], EPS, rtol=1e-5)
    np.testing.assert_array_equal(saved["a"][~right], saved["x"][~right])
    again = model(torch.from_numpy(saved["a"])).argmax(dim=1).numpy() == saved["y"]
    np.testing.assert_array_equal(again, found.correct["a"])
    assert saved["b"].shape == (4, 1, 4, 4)
    with pytest.raises(ValueError, match=r"save_adversarial is .*; allowed: a name ending in .npz"):
        evaluate(model, x, y, eps=EPS, attacks=attacks, save_adversarial=tmp_path / "x.pt")


def without_seconds(evaluation):
    plain = evaluation.to_dict()
    for row in plain["rows"]:
        del row["seconds"]
    return plain


def test_a_stopped_evaluation_goes_on_without_redoing_attacks(problem, tmp_path):
    model, x, y, _ = problem

    class Failing(Shift):
        def generate(self, x, y=None, **kwargs):
            raise KeyboardInterrupt

    first, second = Shift(EPS, eps=EPS), Shift(0.05, eps=EPS)
    attacks = {"first": first, "second": second, "square": "Square"}
    undisturbed = evaluate(model, x, y, eps=EPS, attacks=attacks)
    assert (first._calls, second._calls) == (1, 1)
    state = {"eps": EPS, "state_dir": tmp_path / "new" / "state"}
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, x, y, attacks={"first": first, "second": Failing(0.05, eps=EPS)}, **state)
    assert first._calls == 2
    resumed = evaluate(model, x, y, attacks=attacks, **state)
    assert (first._calls, second._calls) == (2, 2)  # the first was not done again
    assert without_seconds(resumed) == without_seconds(undisturbed)
    again = evaluate(model, x, y, attacks=attacks, **state)
    assert (first._calls, second._calls) == (2, 2)
    assert without_seconds(again) == without_seconds(undisturbed)
    assert not list((tmp_path / "new" / "state").glob("*partial*"))


@pytest.mark.parametrize(
    "change", ["model", "layers", "data", "eps", "seed", "attack", "inner attack", "damage"]
)
def test_the_state_of_another_evaluation_is_refused(problem, tmp_path, change):
    model, x, y, _ = problem
    keywords = {"eps": EPS, "attacks": {"mine": Shift(0.05, eps=EPS)}, "flatness_steps": 0}
    if change == "inner attack":
        keywords["attacks"] = {"mine": Shift(0.05, eps=EPS, attacks=[Shift(0.05)])}
    evaluate(model, x, y, state_dir=tmp_path, **keywords)
    if change == "model":
        with torch.no_grad():
            model.scale += 1
    elif change == "layers":  # the same weights
        other = type("Other", (Mean,), {})()
        other.load_state_dict(model.state_dict())
        model = other
    elif change == "inner attack":
        keywords["attacks"] = {"mine": Shift(0.05, eps=EPS, attacks=[Shift(0.04)])}
    elif change == "data":
        x = x + 0.001
    elif change == "attack":
        keywords["attacks"] = {"mine": Shift(0.04, eps=EPS)}
    elif change == "damage":
        file = tmp_path / "mine.attack.pt"
        file.write_bytes(file.read_bytes()[:-200])
    else:
        keywords[change] = {"eps": 0.11, "seed": 1}[change]
    message = {
        "model": r"model.weights.scale is 11.0, but the evaluation in state_dir has 10.0",
        "layers": r"model.class is .*Other', but the evaluation in state_dir has .*Mean'",
        "data": r"x is another than in the evaluation in state_dir",
        "eps": r"eps is 0.11, but the evaluation in state_dir has 0.1",
        "seed": r"seed is 1, but the evaluation in state_dir has 0",
        "attack": r"attack.object.amount is 0.04, but mine.attack.pt in state_dir has 0.05",
        "inner attack": r"attack.object.attacks.0.amount is 0.04, but mine.attack.pt",
        "damage": "is damaged",
    }[change]
    with pytest.raises(ValueError, match=message):
        evaluate(model, x, y, state_dir=tmp_path, **keywords)


def test_the_state_of_other_preprocessing_is_refused(problem, tmp_path):
    model, x, y, _ = problem
    keywords = {"eps": EPS, "attacks": [Shift(0.05, eps=EPS)], "flatness_steps": 0}
    x, y, keywords["state_dir"] = x.numpy(), y.numpy(), tmp_path
    for _ in range(2):  # the second time it is the same, though ART keeps things of the first
        wrong = make_classifier(model, preprocessing=(0.5, 0.25))
        evaluate(wrong, x, y, **keywords)
        evaluate(wrong, x, y, **keywords)
    with pytest.raises(ValueError, match=r"preprocessing.0.mean is 0.0, but .* has 0.5"):
        evaluate(make_classifier(model), x, y, **keywords)


def test_the_state_of_an_attack_made_for_another_model_is_refused(problem, tmp_path):
    model, x, y, _ = problem
    other = Mean()
    with torch.no_grad():
        other.scale += 1
    keywords = {"eps": EPS, "flatness_steps": 0, "state_dir": tmp_path}
    for _ in range(2):
        attack = FastGradientMethod(make_classifier(model, clip_values=None), eps=EPS)
        evaluate(model, x, y, attacks=[attack], **keywords)
    attack = FastGradientMethod(make_classifier(other, clip_values=None), eps=EPS)
    with pytest.raises(ValueError, match=r"_estimator.model is .*Mean', but .*'the judged model'"):
        evaluate(model, x, y, attacks=[attack], **keywords)


class Writing(Shift):
    """Changes an attack inside it, as ART's AutoAttack does."""

    def generate(self, x, y=None, **kwargs):
        self.attacks[0].amount += 1
        return super().generate(x, y, **kwargs)


def test_an_attack_that_changes_those_inside_it_is_known_again(problem, tmp_path):
    model, x, y, _ = problem
    attack = Writing(0.05, eps=EPS, attacks=[Shift(0.05)])
    for _ in range(2):
        evaluate(model, x, y, eps=EPS, attacks=[attack], flatness_steps=0, state_dir=tmp_path)
    assert attack.attacks[0].amount == 0.05


def test_bounds_beside_a_classifier_are_its_own_or_refused(problem):
    model, x, y, _ = problem
    x, y = x.numpy(), y.numpy()
    keywords = {"eps": EPS, "attacks": [Shift(0.05, eps=EPS)], "flatness_steps": 0}
    evaluate(make_classifier(model), x, y, bounds=(0.0, 1.0), **keywords)
    uneven = (-0.4242, 2.8215)  # which ART rounds to float32
    double = make_classifier(Mean().double(), clip_values=uneven)
    local_flatness(double, x, y, eps=EPS, bounds=uneven, steps=0)
    for own, given in ((None, (0.0, 1.0)), ((0.0, 1.0), (0.0, 2.0)), ((0.0, 1.0), None)):
        with pytest.raises(ValueError, match=r"bounds is .* beside the model's clip_values"):
            evaluate(make_classifier(model, clip_values=own), x, y, bounds=given, **keywords)


def test_a_black_box_attack_inside_another_counts(problem):
    model, x, y, _ = problem
    square = type("SquareAttack", (Shift,), {})(0.05)
    for inside, noted in (([], True), ([Shift(0.05)], True), ([Shift(0.05), square], False)):
        attack = Shift(0.05, eps=EPS, attacks=inside)
        found = evaluate(model, x, y, eps=EPS, attacks=[attack], flatness_steps=0)
        assert ("no black-box attack is in the worst case" in str(found)) is noted


def test_metrics_of_art_on_request(problem):
    model, x, y, _ = problem
    found = evaluate(
        model, x, y, eps=EPS, attacks="Square", metrics=["loss_sensitivity", "clever_u"]
    )
    # The loss gradient at x: (p_wrong * 20) / 16 for each of 16 values.
    probability = torch.softmax(model(x).detach(), dim=1).gather(1, y[:, None])[:, 0]
    expected = float(((1 - probability) * 20 / 16 * 4).mean())
    assert found.metrics["loss_sensitivity"] == pytest.approx(expected, rel=1e-3)
    assert 0 < found.metrics["clever_u"] <= EPS
    assert found.to_dict()["metrics"] == found.metrics
    again = evaluate(model, x, y, eps=EPS, attacks="FGSM", metrics=["clever_u"])
    assert again.metrics["clever_u"] == found.metrics["clever_u"]
    with pytest.raises(ValueError, match=r"metrics is 'clever'; .*did you mean 'clever_u'"):
        evaluate(model, x, y, eps=EPS, metrics=["clever"])


def test_printed_forms_agree(problem):
    model, x, y, _ = problem
    found = evaluate(model, x, y, eps=EPS, attacks=[Shift(0.3), "Square"], flatness_steps=0)
    assert json.loads(found.to_json()) == found.to_dict()
    latex = found.to_latex()
    assert latex.startswith("\\begin{tabular}{lrrrr}")
    assert latex.count("\\\\") == 1 + len(found.rows)
    assert "% eps 0.1, norm inf" in latex
    frame = found.to_frame()
    assert list(frame["distance"].isna()) == [True, False, True, True]
    assert f"{100 * found.worst_case.accuracy:.1f}" in found.to_markdown()


def test_shifted_labels_are_named(problem):
    model, x, _, _ = problem
    labels = model(x).argmax(dim=1)
    with pytest.warns(UserWarning, match=r"y has labels from 1 to 2.*start at 0") as warned:
        found = evaluate(model, x, labels + 1, eps=EPS, attacks="FGSM", flatness_steps=0)
    assert warned[0].filename == __file__
    assert str(warned[0].message) in found.notes
    with pytest.raises(ValueError, match=r"from 1 to 4; allowed: 0 to 3.* begin with 1: use y - 1"):
        evaluate(model, x, torch.arange(len(x)) % 4 + 1, eps=EPS)


@pytest.mark.parametrize("images", [12, 1])
@pytest.mark.filterwarnings("ignore:y has labels from 1 to 1")
def test_one_class_alone_is_judged(problem, images):
    """A detector that takes most of its positives for negatives."""
    model, x, _, _ = problem
    x = x[model(x).argmax(dim=1) == 0][:images]
    found = evaluate(model, x, torch.ones(len(x)).long(), eps=EPS, attacks="FGSM", flatness_steps=0)
    assert found.clean.accuracy == 0.0


def test_channels_last_is_caught():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    x = torch.rand(4, 8, 8, 3)
    with pytest.raises(ValueError, match=r"x has shape \(4, 8, 8, 3\).*transpose\(0, 3, 1, 2\)"):
        evaluate(model, x, torch.zeros(4, dtype=torch.long), eps=EPS)
    integers = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"x has dtype torch.uint8; allowed: floating point"):
        evaluate(model, integers, torch.zeros(4, dtype=torch.long), eps=EPS)
    bright = 255 * torch.rand(4, 3, 8, 8)
    with pytest.raises(ValueError, match=r"x has values from .*inside the bounds"):
        evaluate(model, bright, torch.zeros(4, dtype=torch.long), eps=EPS)


def test_names_that_would_be_one_file_are_kept_apart(problem, tmp_path):
    model, x, y, _ = problem
    attacks = {name: Shift(0.01 * i) for i, name in enumerate(("A B", "A_B", "ä", "ö", "PGD"), 1)}
    keywords = {"eps": EPS, "attacks": attacks, "flatness_steps": 0, "state_dir": tmp_path}
    first = evaluate(model, x, y, **keywords)
    assert len(list(tmp_path.glob("*.attack.pt"))) == 5
    assert (tmp_path / "PGD.attack.pt").exists()
    again = evaluate(model, x, y, **keywords)
    assert all(attack._calls == 1 for attack in attacks.values())
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in first.rows]


@pytest.mark.parametrize("name", ["a/b", "../a", "..", "/a", "a\\b", "a\n", "\x1b[2J", "a" * 200])
def test_names_that_no_file_can_have(problem, tmp_path, name):
    model, x, y, _ = problem
    attack = Shift(0.01)
    with pytest.raises(ValueError, match=r"the name in attacks is .*; allowed: a name of at"):
        evaluate(model, x, y, eps=EPS, attacks={name: attack}, state_dir=tmp_path / "state")
    assert attack._calls == 0
    assert not (tmp_path / "state").exists()


def test_a_flatness_that_is_no_number_is_written(problem):
    _, x, y, _ = problem
    model = Mean()
    with torch.no_grad():
        model.scale.fill_(3e38)
    found = evaluate(model, x, y, eps=EPS, attacks="FGSM", flatness_steps=1)
    assert not np.isfinite(found.flatness).all()
    written = json.loads(found.to_json())
    assert written == found.to_dict()
    assert None in written["per_sample"]["flatness"]
    assert written["flatness"]["mean"] is None


@pytest.mark.parametrize("nothing", [[], (), {}])
def test_no_attack_at_all_is_refused(problem, nothing):
    model, x, y, _ = problem
    with pytest.raises(ValueError, match=r"attacks is .*; allowed: at least one attack"):
        evaluate(model, x, y, eps=EPS, attacks=nothing)


@pytest.mark.parametrize(
    ("attacks", "error", "message"),
    [
        (AttackSpec(Shift(0.05), eps="a"), TypeError, "eps of an AttackSpec is 'a'"),
        (AttackSpec(Shift(0.05), eps=-1), ValueError, "eps of an AttackSpec is -1"),
        (Shift, TypeError, r"the class Shift; allowed: an instance, Shift\(\.\.\.\)"),
        ([FastGradientMethod], TypeError, "the class FastGradientMethod; allowed: an instance"),
    ],
)
def test_what_is_no_attack_is_refused_by_its_name(problem, attacks, error, message):
    model, x, y, _ = problem
    with pytest.raises(error, match=message):
        evaluate(model, x, y, eps=EPS, attacks=attacks)


def test_radii_of_the_same_four_digits_are_not_the_same_attack(problem, tmp_path):
    model, x, y, _ = problem
    keywords = {"eps": EPS, "flatness_steps": 0, "state_dir": tmp_path}
    for _ in range(2):
        evaluate(model, x, y, attacks=[AttackSpec(Shift(0.05), eps=0.12341)], **keywords)
    with pytest.raises(ValueError, match=r"eps is 0\.12344, but .* has 0\.12341"):
        evaluate(model, x, y, attacks=[AttackSpec(Shift(0.05), eps=0.12344)], **keywords)
