"""Attack objects of all libraries in one table of `evaluate`, and the paper's preset."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from art.attacks.evasion import ProjectedGradientDescent

from art_lfr import evaluate
from art_lfr.core.names import PRESETS
from art_lfr.data import digits
from art_lfr.evaluation import AttackSpec

torchattacks = pytest.importorskip(
    "torchattacks", reason='torchattacks is not installed: pip install "art-lfr[torchattacks]"'
)
EPS = 0.1
COUNT = 60


@pytest.fixture(scope="module")
def digits_test():
    data = digits()
    return data.x_test[:COUNT], data.y_test[:COUNT]


@pytest.fixture
def foolbox_attacks():
    found = pytest.importorskip(
        "foolbox", reason='foolbox is not installed: pip install "art-lfr[foolbox]"'
    )
    return found.attacks


def test_libraries_mix(robust, classifier_of, digits_test, foolbox_attacks):
    x, y = digits_test
    classifier = classifier_of(robust)
    step = {"alpha": 0.025, "steps": 10}
    attacks = {
        "ta": torchattacks.PGD(robust, eps=EPS, random_start=False, **step),
        "art": ProjectedGradientDescent(
            classifier, eps=EPS, eps_step=0.025, max_iter=10, verbose=False
        ),
        "fb": foolbox_attacks.LinfPGD(abs_stepsize=0.025, steps=10, random_start=False),
        "ta l2": torchattacks.PGDL2(robust, eps=0.5, alpha=0.1, steps=10),
        "ta none": torchattacks.DeepFool(robust, steps=5),
        "blur": foolbox_attacks.GaussianBlurAttack(steps=20),
        "ddn": AttackSpec(foolbox_attacks.DDNAttack(steps=10), norm=2, eps=0.5),
        "l2 pgd": AttackSpec(foolbox_attacks.L2PGD(steps=10), norm=2, eps=0.5, images=30),
    }
    found = evaluate(classifier, x, y, eps=EPS, attacks=attacks, flatness_steps=0)
    threats = [row.threat for row in found.rows[1:-1]]
    assert threats == ["Linf 0.1"] * 3 + ["L2 0.5"] + ["Linf 0.1"] * 2 + ["L2 0.5"] * 2
    assert found["l2 pgd"].images == 30
    # Equal PGD, equal accuracy, whichever library: within one image.
    same = [found[name].accuracy for name in ("ta", "art", "fb")]
    assert max(same) - min(same) <= 1 / COUNT
    assert max(same) < found.clean.accuracy
    assert [found[name].distance is None for name in ("ta", "ta none", "blur", "ddn")] == [
        True,
        False,
        False,
        True,
    ]
    linf = [found.correct[name] for name in ("clean", "ta", "art", "fb", "ta none", "blur")]
    np.testing.assert_array_equal(found.correct["worst case"], np.logical_and.reduce(linf))


def test_a_plain_module_with_a_wider_box(robust, scaled, digits_test):
    """eps of a torchattacks object is in units of the box: 0.1 of (0, 255) is 25.5."""
    x, y = digits_test
    model = scaled(robust, 0.0, 255.0)
    step = {"eps": EPS, "alpha": 0.025, "steps": 10, "random_start": False}
    attack = torchattacks.PGD(model, **step)
    wide = evaluate(model, 255 * x, y, eps=255 * EPS, bounds=(0, 255), attacks=attack)
    unit = evaluate(robust, x, y, eps=EPS, attacks=torchattacks.PGD(robust, **step))
    assert wide["PGD"].threat == "Linf 25.5"
    assert abs(wide["PGD"].accuracy - unit["PGD"].accuracy) <= 1 / COUNT
    bigger = torchattacks.PGD(model, eps=2 * EPS)
    with pytest.raises(ValueError, match=r"PGD with eps 51, in raw units, where eps is 25.5"):
        evaluate(model, 255 * x, y, eps=255 * EPS, bounds=(0, 255), attacks=bigger)


def test_the_papers_preset(robust, digits_test, foolbox_attacks):
    x, y = digits_test
    *quick, slow = PRESETS["paper"]
    attacks = [*quick, AttackSpec(slow, images=3)]
    found = evaluate(robust, x, y, eps=EPS, attacks=attacks)
    names = ["clean", "FGSM", "PGD", "MI-PGD", "JSMA", "DDN-L2", "pointwise", "worst case"]
    assert [row.name for row in found.rows] == names
    assert [row.images for row in found.rows] == [COUNT] * 6 + [3, COUNT]
    radius = EPS * 64**0.25
    assert [row.threat for row in found.rows[4:7]] == ["L0 25", f"L2 {radius:.4g}", "L0 1"]
    for name in ("FGSM", "PGD", "MI-PGD", "JSMA"):
        assert found[name].accuracy < found.clean.accuracy, name
    # Their closest examples lie further away than these radii.
    assert radius < found["DDN-L2"].distance < 8
    assert 1 < found["pointwise"].distance < 64
    assert any("no black-box attack" in note for note in found.notes)


def test_the_papers_preset_without_foolbox(robust, digits_test, monkeypatch):
    x, y = digits_test
    for name in [n for n in sys.modules if n.split(".")[0] == "foolbox" or n == "art_lfr.foolbox"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(ImportError, match=r'pip install "art-lfr\[foolbox\]"') as caught:
        evaluate(robust, x, y, eps=EPS, attacks="paper")
    assert "\n" not in str(caught.value)


def test_an_l2_attack_of_foolbox_needs_its_radius(robust, digits_test, foolbox_attacks):
    x, y = digits_test
    with pytest.raises(ValueError, match=r"AttackSpec\(attack, norm=..., eps=...\)"):
        evaluate(robust, x, y, eps=EPS, attacks=foolbox_attacks.L2PGD(steps=2))
