"""Attacks of foolbox as evasion attacks of ART."""

from __future__ import annotations

import importlib.util
import inspect

import numpy as np
import pytest
import torch

from art_lfr.core.randomness import seed_global_generators
from art_lfr.data import digits
from art_lfr.models import digits_cnn

foolbox = pytest.importorskip(
    "foolbox", reason='foolbox is not installed: pip install "art-lfr[foolbox]"'
)
Evasion = importlib.import_module("art_lfr.foolbox").FoolboxEvasion
attacks = foolbox.attacks
FIXED = attacks.base.FixedEpsilonAttack
# They do not run without a library that foolbox does not install.
NEEDS_NUMBA = (
    "L0BrendelBethgeAttack",
    "L1BrendelBethgeAttack",
    "L2BrendelBethgeAttack",
    "LinfinityBrendelBethgeAttack",
)
KEYWORDS = {
    "BinarySearchContrastReductionAttack": {"binary_search_steps": 5},
    "BoundaryAttack": {"steps": 20},
    "DDNAttack": {"steps": 20},
    "EADAttack": {"steps": 30, "binary_search_steps": 2},
    "GenAttack": {"steps": 5},
    "HopSkipJumpAttack": {"steps": 1, "max_gradient_eval_steps": 20},
    "L2CarliniWagnerAttack": {"steps": 30, "binary_search_steps": 2},
    "GaussianBlurAttack": {"steps": 50},
    "L0FMNAttack": {"steps": 20},
    "L1FMNAttack": {"steps": 20},
    "L2FMNAttack": {"steps": 20},
    "LInfFMNAttack": {"steps": 20},
    "LinearSearchBlendedUniformNoiseAttack": {"steps": 50},
    "LinearSearchContrastReductionAttack": {"steps": 50},
    "PointwiseAttack": {
        "init_attack": attacks.GaussianBlurAttack(steps=20),
        "l2_binary_search": False,
    },
    "SaltAndPepperNoiseAttack": {"steps": 50},
    "NewtonFoolAttack": {"steps": 30},
    "VirtualAdversarialAttack": {"steps": 3},
}
NAMES = sorted(
    {
        kind.__name__
        for _, kind in inspect.getmembers(attacks, inspect.isclass)
        if issubclass(kind, foolbox.Attack) and not inspect.isabstract(kind)
    }
    # It refines what others have found, and has a test of its own.
    - {"BinarizationRefinementAttack"}
)


def native(model, attack, x, labels, eps=None, seed=3):
    """What foolbox finds alone on a network for [0, 1]: examples and success."""
    model.eval()
    seed_global_generators(seed)
    _, found, success = attack(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"),
        torch.tensor(x),
        labels,
        epsilons=eps,
    )
    return found.detach().numpy(), success.numpy()


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("name", NAMES)
def test_every_attack_finds_what_it_finds_alone(robust, sample, classifier_of, preserved, name):
    x, y = sample
    make = getattr(attacks, name)
    if name in NEEDS_NUMBA and importlib.util.find_spec("numba") is None:
        with pytest.raises(ImportError, match="numba"):
            make()
        return
    keywords = KEYWORDS.get(name, {})
    if issubclass(make, FIXED):  # PGD and random noise, many times
        taken = inspect.signature(make).parameters
        keywords = {k: 5 for k in ("steps", "repeats") if k in taken} | keywords
    attack = make(**keywords)
    eps = 0.3 if issubclass(make, FIXED) else None
    targeted = name == "GenAttack"
    labels = torch.tensor((y + 1) % 10 if targeted else y)
    with preserved(robust):
        evasion = Evasion(classifier_of(robust), attack, eps=eps, targeted=targeted, seed=3)
        found = evasion.generate(x, labels.numpy())
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    if name == "DatasetAttack":  # which alone gives up, as nothing was fed
        assert (classifier_of(robust).predict(found).argmax(1) != y).any()
        assert attack.inputs is None
        assert attack.raw_inputs == []
        return
    criterion = foolbox.criteria.TargetedMisclassification if targeted else lambda labels: labels
    expected, success = native(robust, attack, x, criterion(labels), eps)
    if eps is None:
        assert success.any()
        expected = np.where(success[:, None, None, None], expected, x)
    np.testing.assert_array_equal(found, np.clip(expected, 0, 1))


@pytest.mark.parametrize(("low", "width"), [(0, 255), (-1, 2)])
def test_eps_is_in_raw_units(robust, sample, classifier_of, low, width):
    x, y = sample
    classifier = classifier_of(robust, low=low, width=width, preprocessing=(low, width))
    raw = low + width * x
    attack = attacks.LinfPGD(steps=5, rel_stepsize=0.3, random_start=False)
    found = Evasion(classifier, attack, eps=0.1 * width).generate(raw, y)
    assert abs(found - raw).max() == pytest.approx(0.1 * width, rel=1e-4)
    expected = Evasion(classifier_of(robust), attack, eps=0.1).generate(x, y)
    assert np.isclose(found, low + width * expected, atol=1e-5 * width).mean() > 0.98


def test_minimal_examples_stay_adversarial_in_raw_units(robust, classifier_of, scaled):
    """They lie just over the boundary, where a rounding may bring them back."""
    data = digits()
    x, y = 255 * data.x_test[:60], data.y_test[:60]
    classifier = classifier_of(scaled(robust, 0, 255), width=255)
    found = Evasion(classifier, attacks.LinfDeepFoolAttack(steps=30)).generate(x, y)
    assert (classifier.predict(found).argmax(1) != y).all()
    limited = Evasion(classifier, attacks.LinfDeepFoolAttack(steps=30), eps=20).generate(x, y)
    assert abs(limited - x).max() == pytest.approx(20, rel=1e-4)
    wrong = (classifier.predict(limited).argmax(1) != y).mean()
    assert 0.05 < wrong < 0.95


class Found(attacks.base.MinimizationAttack):
    """Changes two values of the first sample, six of the second, none of the others."""

    distance = foolbox.distances.l0

    def run(self, model, inputs, criterion, *, early_stop=None, **kwargs):
        found = inputs.raw.clone()
        found[0].view(-1)[:2] = 0.7
        found[1].view(-1)[:6] = 0.7
        return type(inputs)(found)


def test_an_l0_example_with_too_many_changes_counts_as_none(robust, sample, classifier_of):
    x, y = sample
    wrong = (y + 5) % 10  # everything is adversarial
    for eps, changed in ((None, [2, 6, 0, 0]), (2, [2, 0, 0, 0]), (1, [0, 0, 0, 0])):
        evasion = Evasion(classifier_of(robust, width=255), Found(), eps=eps)
        found = evasion.generate(x, wrong)
        assert (found != x).sum(axis=(1, 2, 3)).tolist() == changed


def test_samples_without_a_start_come_back(robust, classifier_of):
    """foolbox itself would raise for the whole batch."""
    data = digits()
    x, y = 255 * data.x_test[:6], data.y_test[:6]
    starts = x.copy()
    starts[:3] = 255 * data.x_test[[int(np.argmax(data.y_test != label)) for label in y[:3]]]
    classifier = classifier_of(robust, width=255, preprocessing=(0, 255))
    evasion = Evasion(classifier, attacks.PointwiseAttack(), seed=0, batch_size=4)
    found = evasion.generate(x, y, starting_points=starts)
    assert (classifier.predict(found).argmax(1)[:3] != y[:3]).all()
    assert ((found != x).sum(axis=(1, 2, 3))[:3] < (starts != x).sum(axis=(1, 2, 3))[:3]).all()
    np.testing.assert_array_equal(found[3:], x[3:])


@pytest.mark.filterwarnings("ignore:LinearSearchBlendedUniformNoiseAttack failed to draw")
@pytest.mark.parametrize("make", [attacks.PointwiseAttack, attacks.BoundaryAttack])
def test_a_start_that_foolbox_does_not_find(sample, classifier_of, make):
    """Class 2 is never predicted: no start for the second sample, and none for all in foolbox."""
    linear = torch.nn.Linear(64, 3)
    torch.nn.init.zeros_(linear.weight)
    linear.weight.data[1, 27] = 1.0
    linear.bias.data = torch.tensor([0.5, 0.0, -9.0])
    classifier = classifier_of(torch.nn.Sequential(torch.nn.Flatten(), linear), nb_classes=3)
    x = np.full((2, 1, 8, 8), 0.1, np.float32)
    attack = make() if make is attacks.PointwiseAttack else make(steps=10)
    found = Evasion(classifier, attack, targeted=True, seed=0).generate(x, [1, 2])
    assert classifier.predict(found).argmax(1).tolist() == [1, 0]
    np.testing.assert_array_equal(found[1], x[1])


def test_the_default_start_is_foolbox_s_own(sample, classifier_of):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    classifier, x = classifier_of(model), sample[0][:1]
    y = classifier.predict(x).argmax(1)
    attack = attacks.PointwiseAttack(l2_binary_search=False)
    expected, _ = native(model, attack, x, torch.tensor(y))
    np.testing.assert_array_equal(Evasion(classifier, attack, seed=3).generate(x, y), expected)


def test_fmn_starts_at_the_image_or_where_the_user_says(robust, sample, classifier_of):
    x, y = sample
    attack = attacks.L0FMNAttack(steps=10)
    evasion = Evasion(classifier_of(robust), attack)
    alone, given = evasion.generate(x, y), evasion.generate(x, y, starting_points=1 - x)
    assert (alone != given).any()
    attack.init_attack = attacks.InversionAttack()
    np.testing.assert_array_equal(evasion.generate(x, y), given)


def test_an_init_attack_of_the_user_s(robust, sample, classifier_of):
    x, y = sample
    init = attacks.GaussianBlurAttack(steps=20)
    calls = []
    run = init.run
    init.run = lambda *a, **k: calls.append(1) or run(*a, **k)
    attack = attacks.BoundaryAttack(init_attack=init, steps=5)
    found = Evasion(classifier_of(robust), attack).generate(x, y)
    assert len(calls) == 1
    assert (classifier_of(robust).predict(found).argmax(1) != y).all()


def test_refinement_of_starting_points(sample, classifier_of):
    """A network that only sees whether a value is above 1/2."""
    x, _ = sample
    model = torch.nn.Sequential(_Binary(), digits_cnn())
    classifier = classifier_of(model)
    predicted = classifier.predict(x).argmax(1)
    starts = np.random.default_rng(0).uniform(size=x.shape).astype(np.float32)
    attack = attacks.BinarizationRefinementAttack()
    evasion = Evasion(classifier, attack)
    with pytest.raises(ValueError, match="starting_points is None with BinarizationRefinement"):
        evasion.generate(x, predicted)
    found = evasion.generate(x, predicted, starting_points=starts)
    fooled = classifier.predict(starts).argmax(1) != predicted
    assert (classifier.predict(found).argmax(1) != predicted).tolist() == fooled.tolist()
    assert (abs(found - x) <= abs(starts - x) + 1e-6).all()


class _Binary(torch.nn.Module):
    def forward(self, x):
        return (x >= 0.5).float()


def test_repeated_attacks(robust, sample, classifier_of):
    x, y = sample
    once = attacks.LinfPGD(steps=3)
    evasion = Evasion(classifier_of(robust), once.repeat(3), eps=0.3, seed=3)
    expected, _ = native(robust, once.repeat(3), x, torch.tensor(y), 0.3)
    np.testing.assert_array_equal(evasion.generate(x, y), expected)
    with pytest.raises(ValueError, match="eps is None with LinfProjectedGradientDescentAttack"):
        Evasion(classifier_of(robust), once.repeat(3))
