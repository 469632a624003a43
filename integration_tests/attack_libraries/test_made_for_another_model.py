"""An attack keeps the model that it was made for, and the table says so where it is another."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from torch import nn

from art_lfr import evaluate
from art_lfr.data import digits
from art_lfr.models import digits_cnn

torchattacks = pytest.importorskip(
    "torchattacks", reason='torchattacks is not installed: pip install "art-lfr[torchattacks]"'
)
STEP = {"eps": 0.1, "alpha": 0.025, "steps": 10}
ART_STEP = {"eps": 0.1, "eps_step": 0.025, "max_iter": 10, "verbose": False}
NOTE = "made for another model"


@pytest.fixture(scope="module")
def images():
    data = digits()
    return data.x_test[:60], data.y_test[:60]


@pytest.fixture(scope="module")
def other():
    """A network trained without a defence."""
    torch.manual_seed(1)
    model, data = digits_cnn(), digits()
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    x, y = torch.tensor(data.x_train[:600]), torch.tensor(data.y_train[:600])
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def pgd(model):
    return torchattacks.PGD(model, random_start=False, **STEP)


def test_one_rule_for_all_libraries(robust, other, classifier_of, images):
    x, y = images
    attacks = {
        "ta": pgd(other),
        "multi": torchattacks.MultiAttack([pgd(other), pgd(other)]),
        "art": ProjectedGradientDescent(classifier_of(other), **ART_STEP),
    }
    for judged in (robust, classifier_of(robust)):
        found = evaluate(judged, x, y, eps=0.1, attacks={"own": pgd(robust), **attacks})
        for name in attacks:
            assert sum(note.startswith(f"{name}: {NOTE}") for note in found.notes) == 1
            assert found[name].details["made_for"] == "another model"
            assert found[name].accuracy > found["own"].accuracy
        assert "made_for" not in found["own"].details
        rows = {row["name"]: row for row in json.loads(found.to_json())["rows"]}
        assert rows["ta"]["details"]["made_for"] == "another model"
        assert NOTE in str(found)
    # What the attack finds by itself on its own model.
    alone = pgd(other)(torch.tensor(x), torch.tensor(y))
    correct = robust(alone).argmax(1).numpy() == y
    differ = found.correct["ta"] != (correct & found.correct["clean"])
    assert differ.sum() <= 1  # an image in another batch, by rounding


def test_their_model_is_left_as_it_was(robust, other, classifier_of, images):
    other.train()
    attack, of_art = pgd(other), FastGradientMethod(classifier_of(other), eps=0.1)
    state = {name: value.clone() for name, value in other.state_dict().items()}
    evaluate(robust, *images, eps=0.1, attacks=[attack, of_art])
    assert attack.model is other
    assert other.training
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    assert all(parameter.grad is None for parameter in other.parameters())
    other.eval()


def test_the_judged_model_in_other_clothes_is_the_judged_one(robust, classifier_of, images):
    x, y = images
    attacks = {
        "module": pgd(robust),
        "wrapped": pgd(nn.Sequential(nn.Identity(), robust)),
        "copy": pgd(copy.deepcopy(robust)),
        "none": pgd(None),
        "art": ProjectedGradientDescent(classifier_of(robust), **ART_STEP),
    }
    for judged in (robust, classifier_of(robust)):
        found = evaluate(judged, x, y, eps=0.1, attacks=attacks)
        assert not [note for note in found.notes if NOTE in note]
        accuracies = [found[name].accuracy for name in attacks]
        assert max(accuracies) - min(accuracies) <= 1 / 60


class Rounded(nn.Module):
    """A defence that masks gradients, or what attacks see of it."""

    def __init__(self, network, *, straight_through=False):
        super().__init__()
        self.network, self.straight_through = network, straight_through

    def forward(self, x):
        coarse = torch.round(x * 16) / 16
        return self.network(x + (coarse - x).detach() if self.straight_through else coarse)


def test_a_surrogate_of_torchattacks_stays_what_is_attacked(robust, images):
    judged = Rounded(robust)
    surrogates = {"plain": robust, "bpda": Rounded(robust, straight_through=True)}
    for model in (judged, *surrogates.values()):
        model.eval()  # torchattacks puts back the mode that a model had
    attacks = {name: pgd(model) for name, model in {"own": judged, **surrogates}.items()}
    found = evaluate(judged, *images, eps=0.1, attacks=attacks)
    for name in surrogates:
        assert found[name].details["made_for"] == "another model"
        assert found[name].accuracy < found["own"].accuracy - 0.1
    assert "made_for" not in found["own"].details
    x = torch.tensor(images[0])
    examples = attacks["bpda"](x, torch.tensor(images[1]))
    correct, clean = (judged(batch).argmax(1).numpy() == images[1] for batch in (examples, x))
    assert (correct & clean).mean() == pytest.approx(found["bpda"].accuracy)


def test_normalisation_of_an_attack_object_is_part_of_its_model(robust, images):
    class Denormalised(nn.Module):
        def forward(self, x):
            return robust(0.5 * x + 0.25)

    attack = pgd(Denormalised())
    attack.set_normalization_used(mean=[0.25], std=[0.5])
    found = evaluate(robust, *images, eps=0.1, attacks={"normalised": attack, "own": pgd(robust)})
    assert "made_for" not in found["normalised"].details
    assert abs(found["normalised"].accuracy - found["own"].accuracy) <= 1 / 60


def test_weights_that_have_moved_since_make_another_model(robust, images):
    before = copy.deepcopy(robust)
    with torch.no_grad():
        next(before.buffers()).add_(0.1)
    assert [NOTE in n for n in evaluate(robust, *images, eps=0.1, attacks=pgd(before)).notes].count(
        True
    ) == 1


@pytest.mark.parametrize(
    ("make", "reach"),
    [
        (lambda m, c: torchattacks.MIFGSM(m, eps=0.1), "0.0784 of the 0.1"),
        (lambda m, c: torchattacks.MIFGSM(m, eps=0.1, alpha=0.01), None),
        (lambda m, c: torchattacks.MIFGSM(m), "0.0314 of the 0.1"),
        (lambda m, c: torchattacks.FFGSM(m, eps=0.1), "0.0392 of the 0.1"),
        (lambda m, c: torchattacks.PGDL2(m, eps=1.0, alpha=0.02, steps=5), "0.1 of the 1 "),
        (lambda m, c: torchattacks.MultiAttack([pgd(m), torchattacks.FGSM(m, eps=0.1)]), None),
        (
            lambda m, c: torchattacks.MultiAttack(
                [torchattacks.PGD(m, eps=0.1, alpha=0.001), torchattacks.FGSM(m, eps=0.02)]
            ),
            "0.02 of the 0.1",
        ),
        (
            lambda m, c: torchattacks.MultiAttack([torchattacks.PGDL2(m), torchattacks.CW(m)]),
            None,
        ),
        (lambda m, c: torchattacks.FGSM(m, eps=0.1), None),
        (lambda m, c: torchattacks.APGD(m, eps=0.1), None),
        (lambda m, c: FastGradientMethod(c, eps=0.1, eps_step=0.01), None),
        (lambda m, c: FastGradientMethod(c, eps=0.05), "0.05 of the 0.1"),
        (lambda m, c: ProjectedGradientDescent(c, **ART_STEP), None),
        (
            lambda m, c: ProjectedGradientDescent(c, **{**ART_STEP, "max_iter": 2}),
            "0.05 of the 0.1",
        ),
    ],
)
def test_an_attack_that_cannot_reach_its_ball(robust, classifier_of, images, make, reach):
    x, y = images
    attack = make(robust, classifier_of(robust))
    notes = evaluate(robust, x[:4], y[:4], eps=0.1, attacks=attack).notes
    assert [f"reaches at most {reach}" in n for n in notes if "reaches" in n] == (
        [] if reach is None else [True]
    )


@pytest.mark.parametrize(
    ("switch", "mode"),
    [
        (lambda a: a.set_mode_targeted_random(quiet=True), "targeted(random)"),
        (lambda a: a.set_mode_targeted_least_likely(quiet=True), "targeted(least-likely)"),
        (
            lambda a: a.set_mode_targeted_by_function(lambda x, y: (y + 1) % 10, quiet=True),
            "targeted(custom)",
        ),
        (lambda a: None, None),
    ],
)
def test_a_targeted_mode_is_named(robust, images, switch, mode):
    x, y = images
    attack, inner = pgd(robust), pgd(robust)
    for each in (attack, inner):
        switch(each)
    attacks = {"one": attack, "multi": torchattacks.MultiAttack([pgd(robust), inner])}
    notes = evaluate(robust, x[:4], y[:4], eps=0.1, attacks=attacks).notes
    named = [note.split(":")[0] for note in notes if mode is not None and repr(mode) in note]
    assert named == ([] if mode is None else ["one", "multi"])
    assert mode is not None or not [note for note in notes if "in the mode" in note]


def test_foolbox_and_other_units(robust, scaled, images):
    attacks = pytest.importorskip("foolbox", reason="foolbox is not installed").attacks
    x, y = images
    model = scaled(robust, 0.0, 255.0)
    found = evaluate(
        model,
        255 * x[:4],
        y[:4],
        eps=25.5,
        bounds=(0, 255),
        attacks={
            "short": attacks.LinfPGD(abs_stepsize=0.005, steps=10),
            "long": attacks.LinfPGD(abs_stepsize=0.02, steps=10),
            "relative": attacks.LinfPGD(rel_stepsize=0.05, steps=10),
            "ta": torchattacks.PGD(model, eps=0.1, alpha=0.005, steps=10),
        },
    )
    notes = sorted(note.split(" of its")[0] for note in found.notes if "reaches" in note)
    assert notes == [
        f"{name}: reaches at most 12.8 of the 25.5" for name in ("relative", "short", "ta")
    ]
