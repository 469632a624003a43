"""ART's attacks as attacks of torchattacks."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from art.attacks import EvasionAttack
from art.attacks.evasion import (
    AdversarialPatchPyTorch,
    AutoAttack,
    FastGradientMethod,
    ProjectedGradientDescent,
    SaliencyMapMethod,
)

from art_lfr.core.randomness import RandomState

torchattacks = pytest.importorskip(
    "torchattacks", reason='torchattacks is not installed: pip install "art-lfr[torchattacks]"'
)
adapters = importlib.import_module("art_lfr.torchattacks")
ARTAttack, LocalFlatnessAttack = adapters.ARTAttack, adapters.LocalFlatnessAttack
CPU = torch.device("cpu")


def pgd(classifier, **keywords):
    keywords = {"eps": 0.1, "eps_step": 0.03, "max_iter": 5, "verbose": False, **keywords}
    return ProjectedGradientDescent(classifier, **keywords)


def test_nothing_is_left_changed(robust, images, classifier_of, preserved):
    attack = ARTAttack(pgd(classifier_of(robust), num_random_init=1), seed=0)
    before, kept = RandomState.capture(CPU), images[0].clone()
    with preserved(robust, attack):
        found = attack(*images)
    assert not before.differs_from(RandomState.capture(CPU))
    assert torch.equal(images[0], kept)
    assert found.grad_fn is None
    assert torch.equal(attack(*images), found)
    attack.seed = None
    assert not torch.equal(attack(*images), attack(*images))


@pytest.mark.parametrize(("low", "width"), [(0, 1), (0, 255), (-1, 2)])
def test_an_art_attack_on_any_clip_values(robust, images, classifier_of, low, width):
    """eps of the ART attack is in raw units; images are taken before the preprocessing."""
    x, y = images
    classifier = classifier_of(robust, low=low, width=width, preprocessing=(low, width))
    attack = pgd(classifier, eps=0.1 * width, eps_step=0.03 * width)
    found = ARTAttack(attack)(x, y)
    expected = pgd(classifier_of(robust)).generate(x.numpy(), np.eye(10)[y])
    same = np.isclose(found.numpy(), expected, atol=1e-5)
    assert same.mean() > 0.98
    assert float((found - x).abs().max()) == pytest.approx(0.1, rel=1e-4)


class OneValue(EvasionAttack):
    """Changes one value of each image, in the array that it is given; NaN for the last image."""

    _estimator_requirements = ()

    def generate(self, x, y=None, **kwargs):
        x[:, 0, 3, 3] += np.where(x[:, 0, 3, 3] > 0, -1, 1)
        x[-1, 0, 0, 0] = np.nan
        return x


def test_values_that_art_left_alone_are_exactly_those_given(robust, images, classifier_of):
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    classifier = classifier_of(robust, low=-3, width=7, preprocessing=(-3, 7))
    found = ARTAttack(OneValue(estimator=classifier))(x, images[1])
    assert torch.equal(x, kept)
    assert (found != x).flatten(1).sum(dim=1).tolist() == [1, 1, 1, 0]


def test_targets_of_an_art_attack(robust, images, classifier_of, capsys):
    x, y = images
    classifier = classifier_of(robust)
    native = pgd(classifier, eps=0.6, eps_step=0.05, max_iter=40)
    attack = ARTAttack(native)
    robust.eval()
    for choose in ("set_mode_targeted_by_label", "set_mode_targeted_by_function"):
        function = [lambda x, y: (y + 3) % 10] if choose.endswith("function") else []
        getattr(attack, choose)(*function, quiet=True)
        found = attack(x, y if function else (y + 3) % 10)
        assert (robust(found).argmax(1) == (y + 3) % 10).float().mean() > 0.7
    assert native.targeted is False
    native.set_params(targeted=True)
    assert ARTAttack(native).get_mode() == "targeted(label)"
    assert ARTAttack(AutoAttack(classifier, targeted=True)).supported_mode == ["default"]
    # Its true labels, taken for targets, would leave every image as it is.
    jsma = ARTAttack(SaliencyMapMethod(classifier, theta=1.0, gamma=0.5, verbose=False))
    assert (robust(jsma(x, y)).argmax(1) != y).all()
    assert capsys.readouterr().out == ""


def test_targets_are_switched_off_also_where_art_raises(robust, images, classifier_of, monkeypatch):
    native = pgd(classifier_of(robust))
    attack = ARTAttack(native)
    attack.set_mode_targeted_by_label(quiet=True)

    def broken(**_):
        assert native.targeted
        raise KeyboardInterrupt

    monkeypatch.setattr(native, "generate", broken)
    with pytest.raises(KeyboardInterrupt):
        attack(*images)
    assert native.targeted is False


def test_beside_attacks_of_torchattacks(robust, images, classifier_of, scaled):
    x, y = images
    classifier = classifier_of(robust)
    weak = ARTAttack(FastGradientMethod(classifier, eps=0.01))
    strong = ARTAttack(pgd(classifier, eps=0.6, eps_step=0.1))
    both = torchattacks.MultiAttack([weak, LocalFlatnessAttack(robust), strong])
    assert (both.get_output_with_eval_nograd(both(x, y)).argmax(1) != y).all()
    # A classifier with raw units and preprocessing of its own: one module for all.
    classifier = classifier_of(scaled(robust, 0, 255), width=255)
    model = adapters.unit_model(classifier)
    strong = ARTAttack(pgd(classifier, eps=150, eps_step=30), model)
    both = torchattacks.MultiAttack([torchattacks.FGSM(model, eps=0.01), strong])
    found = both(x, y)
    assert (classifier.predict(255 * found.numpy()).argmax(1) != y.numpy()).all()
    # And back into ART.
    evasion = adapters.TorchattacksEvasion(classifier, both)
    again = evasion.generate(255 * x.numpy(), y.numpy())
    assert (classifier.predict(again).argmax(1) != y.numpy()).all()
    assert both.model is strong.model is model


@pytest.mark.parametrize("training", [True, False])
def test_a_unit_model_for_attacks_alone(robust, images, classifier_of, training):
    """torchattacks leaves a model in train mode where its root was in it."""
    x, y = images
    classifier = classifier_of(robust, low=-1, width=2, preprocessing=(-1, 2))
    robust.train(training)
    model = adapters.unit_model(classifier)
    found = torchattacks.FGSM(model, eps=0.1)(x, y)
    assert robust.training is model.training is training
    robust.eval()
    expected = torchattacks.FGSM(robust, eps=0.1)(x, y)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"unit_model\(\) needs finite bounds"):
        adapters.unit_model(classifier_of(robust, clip_values=None))


def test_what_cannot_be(robust, images, classifier_of):
    classifier = classifier_of(robust)
    with pytest.raises(TypeError, match=r"attack is a PGD; allowed: an art\.attacks"):
        ARTAttack(torchattacks.PGD(robust))
    patch = AdversarialPatchPyTorch(
        classifier, 0, 1, 1.0, patch_shape=(1, 4, 4), max_iter=1, verbose=False
    )
    with pytest.raises(TypeError, match="attack is a AdversarialPatchPyTorch, which returned"):
        ARTAttack(patch)(*images)
    with pytest.raises(ValueError, match="seed is -1; allowed"):
        ARTAttack(pgd(classifier), seed=-1)
