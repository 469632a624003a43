"""Every attack of torchattacks as an evasion attack of ART, on a network trained with LFR."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from art.exceptions import EstimatorError
from torch import nn

from art_lfr.core.randomness import seed_global_generators

torchattacks = pytest.importorskip(
    "torchattacks", reason='torchattacks is not installed: pip install "art-lfr[torchattacks]"'
)
Evasion = importlib.import_module("art_lfr.torchattacks").TorchattacksEvasion
# Their kernels are made for three channels.
NEEDS_RGB = ("TIFGSM", "PIFGSM", "PIFGSMPP")
# They run other attacks, and have tests of their own.
WRAPPERS = ("MultiAttack", "LGV")
# Quicker, or with an eps at which something is found.
KEYWORDS = {
    "APGD": {"eps": 0.3},
    "APGDT": {"eps": 0.3, "steps": 4},
    "AutoAttack": {"eps": 0.6, "seed": 0},  # leaves no image for Square's 5,000 queries
    "CW": {"c": 10, "steps": 20, "lr": 0.05},
    "DeepFool": {"steps": 15},
    "EADEN": {"binary_search_steps": 2, "max_iterations": 20, "initial_const": 10},
    "EADL1": {"binary_search_steps": 2, "max_iterations": 20, "initial_const": 10},
    "FAB": {"eps": 0.5},
    "SparseFool": {"steps": 3},
    "Square": {"eps": 0.5, "n_queries": 60},
}


class Grey(nn.Module):
    """A network for one channel, on three."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x.mean(dim=1, keepdim=True))


@pytest.mark.parametrize("name", [n for n in torchattacks.__all__ if n not in WRAPPERS])
def test_every_attack_finds_what_it_finds_alone(robust, sample, classifier_of, preserved, name):
    x, y = sample
    classifier = classifier_of(robust)
    make = getattr(torchattacks, name)
    model = robust
    if name in NEEDS_RGB:
        with preserved(robust), pytest.raises(RuntimeError, match="to have 3 channels"):
            Evasion(classifier, make(robust)).generate(x, y)
        model, x = Grey(robust), np.repeat(x, 3, axis=1)
        classifier = classifier_of(model, input_shape=(3, 8, 8))
    attack = make(model, **KEYWORDS.get(name, {}))
    with preserved(robust, attack):
        found = Evasion(classifier, attack, seed=3, batch_size=4).generate(x, y)
    robust.eval()
    seed_global_generators(3)
    alone = attack(torch.tensor(x), torch.tensor(y)).detach().clamp(0, 1).numpy()
    assert found.shape == x.shape
    assert found.dtype == x.dtype
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_array_equal(found, alone)
    # An attack that is none would agree with itself too.
    assert (found != x).any() or name == "VANILA"


@pytest.mark.parametrize(("low", "width"), [(0, 255), (-1, 2), (-0.9, 1.2)])
@pytest.mark.parametrize("inside", [True, False], ids=["in the network", "preprocessing"])
def test_any_clip_values_and_preprocessing(
    robust, sample, classifier_of, scaled, low, width, inside
):
    x, y = sample
    attack = torchattacks.PGD(robust, eps=0.1, alpha=0.03, steps=5, random_start=False)
    expected = Evasion(classifier_of(robust), attack).generate(x, y)
    if inside:
        classifier = classifier_of(scaled(robust, low, width), low=low, width=width)
    else:
        classifier = classifier_of(robust, low=low, width=width, preprocessing=(low, width))
    raw = (low + width * x.astype(np.float64)).astype(np.float32)
    found = Evasion(classifier, attack).generate(raw, y)
    # Where a gradient is all but 0, its sign is that of a rounding.
    same = np.isclose(found, low + width * expected, atol=1e-5 * width)
    assert same.mean() > 0.98
    assert abs(found - raw).max() == pytest.approx(0.1 * width, rel=1e-4)
    assert found.min() >= np.float32(low)
    assert found.max() <= np.float32(low + width)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_the_attack_left_alone_are_exactly_those_given(
    robust, sample, classifier_of, scaled, dtype
):
    classifier = classifier_of(scaled(robust, -3.0, 7.0), low=-3.0, width=7.0)
    x = np.random.default_rng(0).uniform(-3, 4, (4, 1, 8, 8)).astype(dtype)
    found = Evasion(classifier, torchattacks.OnePixel(robust, steps=2)).generate(x, sample[1])
    assert found.dtype == dtype
    assert ((found != x).sum(axis=(1, 2, 3)) <= 1).all()
    assert (found != x).any()


class Threshold(nn.Module):
    """Class 1 from one float upwards: x / 3 * 3 is another float, and of another class."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x):
        above = (x.flatten(1)[:, 0] >= self.threshold).float()
        return torch.stack([1 - above, above], dim=1)


def test_an_example_is_of_the_class_that_the_attack_saw(classifier_of):
    """The exact values of x may lie on the other side of the boundary."""
    values = np.linspace(0, 3, 1001, dtype=np.float32)
    mapped = (torch.tensor(values) / 3 * 3).numpy()
    value = values[mapped < values][0]
    classifier = classifier_of(
        Threshold(value), width=3.0, nb_classes=2, input_shape=(2,), clip_values=(0.0, 3.0)
    )
    x = np.array([[value, 1.0]], np.float32)

    class Second(torchattacks.VANILA):
        def forward(self, images, labels):
            self.seen = self.get_logits(images).argmax(dim=1)
            return images + torch.tensor([0.0, 0.1])

    attack = Second(classifier.model)
    found = Evasion(classifier, attack).generate(x, np.array([1]))
    assert classifier.predict(x).argmax() == 1
    assert classifier.predict(found).argmax() == attack.seen.item() == 0


def test_normalisation_of_the_object_is_off_and_comes_back(
    robust, sample, classifier_of, preserved
):
    attack = torchattacks.PGD(robust, random_start=False)
    expected = Evasion(classifier_of(robust), attack).generate(*sample)
    attack.set_normalization_used([0.3], [0.4])
    with preserved(robust, attack):
        found = Evasion(classifier_of(robust), attack).generate(*sample)
    np.testing.assert_array_equal(found, expected)
    assert attack._normalization_applied is True


def test_targets(robust, sample, classifier_of, preserved, capsys):
    x, y = sample
    classifier = classifier_of(robust)
    attack = torchattacks.PGD(robust, eps=0.6, alpha=0.05, steps=40)
    attack.set_mode_targeted_random(quiet=True)
    evasion = Evasion(classifier, attack, targeted=True, seed=0)
    assert evasion.targeted is True
    for targets in ((y + 3) % 10, np.eye(10)[(y + 3) % 10]):
        with preserved(robust, attack):
            found = evasion.generate(x, targets)
        assert (classifier.predict(found).argmax(1) == (y + 3) % 10).mean() > 0.7
    assert attack.get_mode() == "targeted(random)"
    with pytest.raises(ValueError, match="y is None with targeted True"):
        evasion.generate(x)
    assert capsys.readouterr().out == ""


def test_a_mode_of_the_object_s_own_gets_true_labels(robust, sample, classifier_of):
    x, y = sample
    attack = torchattacks.PGD(robust, eps=0.6, alpha=0.05, steps=40)
    seen = []
    attack.set_mode_targeted_by_function(lambda x, y: seen.append(y) or (y + 5) % 10, quiet=True)
    classifier = classifier_of(robust)
    found = Evasion(classifier, attack).generate(x, y)
    assert (classifier.predict(found).argmax(1) == (y + 5) % 10).mean() > 0.7
    np.testing.assert_array_equal(torch.cat(seen), y)


def test_without_labels_the_predicted_ones_are_true(robust, sample, classifier_of):
    classifier = classifier_of(robust)
    predicted = classifier.predict(sample[0]).argmax(1)
    evasion = Evasion(classifier, torchattacks.FGSM(robust, eps=0.2))
    expected = evasion.generate(sample[0], predicted)
    np.testing.assert_array_equal(evasion.generate(sample[0]), expected)
    assert (evasion.generate(sample[0], (predicted + 1) % 10) != expected).any()


def test_a_sample_for_which_the_attack_gives_nan_comes_back(robust, sample, classifier_of):
    class Half(torchattacks.VANILA):
        def forward(self, images, labels):
            images[:2] = torch.nan
            return images.mul_(2).add_(0.1)

    found = Evasion(classifier_of(robust), Half(robust)).generate(*sample)
    np.testing.assert_array_equal(found[:2], sample[0][:2])
    np.testing.assert_array_equal(found[2:], np.clip(2 * sample[0][2:] + np.float32(0.1), 0, 1))


def test_what_generic_code_of_art_passes(robust, sample, classifier_of):
    attack = Evasion(classifier_of(robust), torchattacks.FGSM(robust, eps=0.1))
    x, y = sample
    np.testing.assert_array_equal(
        attack.generate(x=x, y=y, mask=None, x_init=None), attack.generate(x=x, y=y)
    )
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
        attack.generate(x=x, y=y, mask=np.ones_like(x))
    with pytest.raises(EstimatorError):
        Evasion(robust, torchattacks.FGSM(robust))
