"""The same PGD of three libraries, alone and through every adapter, on a network trained with LFR.

One percentage point is four or five of the 450 images.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent

from art_lfr.core.randomness import seed_global_generators
from art_lfr.data import digits

EPS, STEP, ITERATIONS = 0.1, 0.025, 10
POINT = 0.01
SEEDS = range(3)
DATA = digits()
TEST = DATA.x_test, DATA.y_test
SEEDED = {"seed": 0, "batch_size": 450}


def library(name, adapter=None):
    """A library, or the module here that adapts it; skips the test where it is missing."""
    found = pytest.importorskip(
        name, reason=f'{name} is not installed: pip install "art-lfr[{name}]"'
    )
    return importlib.import_module(adapter) if adapter else found


def torch_pgd(model, start):
    make = library("torchattacks").PGD
    return make(model, eps=EPS, alpha=STEP, steps=ITERATIONS, random_start=start)


def foolbox_pgd(start):
    make = library("foolbox").attacks.LinfPGD
    return make(abs_stepsize=STEP, steps=ITERATIONS, random_start=start)


def art_pgd(classifier, start, width=1):
    return ProjectedGradientDescent(
        classifier,
        eps=EPS * width,
        eps_step=STEP * width,
        max_iter=ITERATIONS,
        num_random_init=int(start),
        batch_size=450,
        verbose=False,
    )


def torchattacks_alone(model, classifier, start):
    return torch_pgd(model, start)(torch.tensor(DATA.x_test), torch.tensor(DATA.y_test)).numpy()


def torchattacks_in_art(model, classifier, start):
    adapter = library("torchattacks", "art_lfr.torchattacks").TorchattacksEvasion
    return adapter(classifier, torch_pgd(model, start), **SEEDED).generate(*TEST)


def art_alone(model, classifier, start):
    return art_pgd(classifier, start).generate(*TEST)


def art_in_torchattacks(model, classifier, start):
    adapter = library("torchattacks", "art_lfr.torchattacks").ARTAttack
    attack = adapter(art_pgd(classifier, start), seed=0)
    return attack(torch.tensor(DATA.x_test), torch.tensor(DATA.y_test)).numpy()


def foolbox_alone(model, classifier, start):
    module = library("foolbox").PyTorchModel(model, bounds=(0, 1), device="cpu")
    images, labels = torch.tensor(DATA.x_test), torch.tensor(DATA.y_test)
    return foolbox_pgd(start)(module, images, labels, epsilons=EPS)[1].numpy()


def foolbox_in_art(model, classifier, start):
    adapter = library("foolbox", "art_lfr.foolbox").FoolboxEvasion
    return adapter(classifier, foolbox_pgd(start), eps=EPS, **SEEDED).generate(*TEST)


PAIRS = [
    (torchattacks_alone, torchattacks_in_art),
    (art_alone, art_in_torchattacks),
    (foolbox_alone, foolbox_in_art),
]


def accuracy(model, x):
    model.eval()
    with torch.no_grad():
        predicted = model(torch.as_tensor(x)).argmax(dim=1).numpy()
    return (predicted == DATA.y_test).mean()


def run(way, model, classifier, start, seed=0):
    model.eval()
    seed_global_generators(seed)
    return way(model, classifier, start)


@pytest.fixture(scope="module")
def plain(robust, classifier_of):
    """What ART's PGD finds from x."""
    return run(art_alone, robust, classifier_of(robust), False)


@pytest.mark.parametrize("way", [way for pair in PAIRS for way in pair], ids=lambda w: w.__name__)
def test_pgd_from_x(robust, classifier_of, plain, way):
    expected = accuracy(robust, plain)
    found = run(way, robust, classifier_of(robust), False)
    assert abs(accuracy(robust, found) - expected) <= POINT
    assert abs(found - DATA.x_test).max() == pytest.approx(EPS, rel=1e-4)
    # Neither all nor nothing, where anything would agree.
    assert 0.1 < expected < accuracy(robust, DATA.x_test) - 0.1


@pytest.mark.parametrize(("alone", "adapted"), PAIRS, ids=lambda way: way.__name__)
def test_pgd_from_a_random_start_through_an_adapter(robust, classifier_of, alone, adapted):
    """The same seed gives the same start."""
    found = [run(way, robust, classifier_of(robust), True) for way in (alone, adapted)]
    np.testing.assert_array_equal(*found)


def test_pgd_from_random_starts_in_every_library(robust, classifier_of):
    """They draw different ones: their means over a few agree."""
    library("foolbox")
    means = [
        np.mean([accuracy(robust, run(way, robust, classifier_of(robust), True, s)) for s in SEEDS])
        for way in (art_alone, torchattacks_alone, foolbox_alone)
    ]
    assert max(means) - min(means) <= POINT


def test_an_attack_of_each_library_at_once(robust, classifier_of, plain):
    """The worst case over equal attacks is that of one; what both find is not attacked twice."""
    adapter = library("torchattacks", "art_lfr.torchattacks").ARTAttack
    seen = []
    native = art_pgd(classifier_of(robust), False)
    generate = native.generate
    native.generate = lambda x, y: seen.append(len(x)) or generate(x, y)
    both = library("torchattacks").MultiAttack([torch_pgd(robust, False), adapter(native)])
    found = both(torch.tensor(DATA.x_test), torch.tensor(DATA.y_test)).numpy()
    assert abs(accuracy(robust, found) - accuracy(robust, plain)) <= POINT
    assert seen[0] == pytest.approx(450 * accuracy(robust, plain), abs=450 * POINT)


@pytest.mark.parametrize("kind", ["torchattacks", "foolbox", "art"])
def test_pgd_is_as_strong_on_raw_pixels(robust, classifier_of, scaled, plain, kind):
    """Inputs in [0, 255], of which one half of the scaling is preprocessing."""
    model = scaled(robust, 0, 5)
    classifier = classifier_of(model, width=255, preprocessing=(0, 51))
    robust.eval()
    x, y = 255 * DATA.x_test, DATA.y_test
    if kind == "torchattacks":
        adapter = library("torchattacks", "art_lfr.torchattacks").TorchattacksEvasion
        found = adapter(classifier, torch_pgd(robust, False)).generate(x, y)
    elif kind == "foolbox":
        adapter = library("foolbox", "art_lfr.foolbox").FoolboxEvasion
        found = adapter(classifier, foolbox_pgd(False), eps=255 * EPS).generate(x, y)
    else:
        adapters = library("torchattacks", "art_lfr.torchattacks")
        attack = adapters.ARTAttack(art_pgd(classifier, False, width=255))
        images = attack(torch.tensor(DATA.x_test), torch.tensor(y))
        found = 255 * images.numpy()
    expected = accuracy(robust, plain)
    assert abs((classifier.predict(found).argmax(1) == y).mean() - expected) <= POINT
    assert abs(found - x).max() == pytest.approx(255 * EPS, rel=1e-4)
    assert np.isclose(found / 255, plain, atol=1e-5).mean() > 0.98
