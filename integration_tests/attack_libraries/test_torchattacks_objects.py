"""What the adapter does to a torchattacks object and to the world around it, and who can use it."""

from __future__ import annotations

import contextlib
import importlib
import sys

import numpy as np
import pytest
import torch
from art.defences.trainer import AdversarialTrainer
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate
from art_lfr.core.randomness import RandomState
from art_lfr.data import digits
from art_lfr.models import digits_cnn

torchattacks = pytest.importorskip(
    "torchattacks", reason='torchattacks is not installed: pip install "art-lfr[torchattacks]"'
)
Evasion = importlib.import_module("art_lfr.torchattacks").TorchattacksEvasion
CPU = torch.device("cpu")


class Breaking(torchattacks.VANILA):
    """Refers to its model by another name and in a tuple, meddles, and may raise."""

    def __init__(self, model, raises):
        super().__init__(model)
        self.net, self.raises = model, raises
        self.parts = (torchattacks.FGSM(model),)
        self.supported_mode = ["default", "targeted"]

    def forward(self, images, labels):
        self.seen = self.net, self.parts[0].model
        self.late = torchattacks.FGSM(self.model)
        self.net.train()
        torch.rand(3), np.random.rand()
        nn.functional.cross_entropy(self.net(images), labels)
        if self.raises:
            raise KeyboardInterrupt
        return images


@pytest.mark.parametrize("raises", [True, False])
def test_all_comes_back_whatever_the_attack_does(robust, sample, classifier_of, preserved, raises):
    attack = Breaking(robust, raises)
    attack.set_normalization_used([0.3], [0.4])
    evasion = Evasion(classifier_of(robust), attack, seed=5, targeted=True)
    before = RandomState.capture(CPU)
    expected = pytest.raises(KeyboardInterrupt) if raises else contextlib.nullcontext()
    with preserved(robust, attack, attack.parts[0]), expected:
        evasion.generate(*sample)
    assert not before.differs_from(RandomState.capture(CPU))
    assert all(module is not robust for module in attack.seen)
    assert attack.net is attack.late.model is robust


def test_an_object_without_a_model_can_be_made_for_the_adapter(robust, sample, classifier_of):
    class Modelless(torchattacks.FGSM):
        extra = None

        def forward(self, images, labels):
            assert self.extra is None
            return super().forward(images, labels)

    attack = Modelless(None)
    attack.extra = None
    found = Evasion(classifier_of(robust), attack).generate(*sample)
    alone = Evasion(classifier_of(robust), torchattacks.FGSM(robust))
    np.testing.assert_array_equal(found, alone.generate(*sample))
    assert attack.model is None


def test_train_mode_during_the_attack_leaves_running_statistics(
    robust, sample, classifier_of, preserved
):
    attack = torchattacks.PGD(robust)
    attack.set_model_training_mode(True, True, True)
    with preserved(robust, attack):
        trained = Evasion(classifier_of(robust), attack, seed=0).generate(*sample)
    attack.set_model_training_mode(False)
    assert (trained != Evasion(classifier_of(robust), attack, seed=0).generate(*sample)).any()


def test_seeds(robust, sample, classifier_of):
    """None: as torch's global generator has it, of which one number is used."""
    classifier, attack = classifier_of(robust), torchattacks.PGD(robust)
    fixed, free = (Evasion(classifier, attack, seed=seed) for seed in (1, None))
    np.testing.assert_array_equal(fixed.generate(*sample), fixed.generate(*sample))
    torch.manual_seed(0)
    first, second = free.generate(*sample), free.generate(*sample)
    assert (first != second).any()
    # APGD reseeds torch's generator with 0.
    Evasion(classifier, torchattacks.APGD(robust)).generate(*sample)
    after = torch.rand(1)
    torch.manual_seed(0)
    np.testing.assert_array_equal(free.generate(*sample), first)
    torch.randint(2**31, (2,))
    assert torch.equal(torch.rand(1), after)


def test_gradients_are_on_where_the_caller_has_none(robust, sample, classifier_of):
    evasion = Evasion(classifier_of(robust), torchattacks.FGSM(robust))
    expected = evasion.generate(*sample)
    with torch.no_grad():
        np.testing.assert_array_equal(evasion.generate(*sample), expected)


def test_several_attacks_as_one(robust, sample, classifier_of, scaled, preserved):
    parts = [torchattacks.FGSM(robust, eps=0.02), torchattacks.PGD(robust, eps=0.5, alpha=0.1)]
    attack = torchattacks.MultiAttack(parts)
    classifier = classifier_of(scaled(robust, 0, 255), width=255)
    x, y = sample
    with preserved(robust, attack, *parts):
        found = Evasion(classifier, attack).generate(255 * x, y)
    assert (classifier.predict(found).argmax(1) != y).all()


def test_lgv_keeps_its_own_models_and_never_trains_the_classifier(
    robust, sample, classifier_of, preserved
):
    x, y = (torch.tensor(part) for part in sample)
    lgv = torchattacks.LGV(robust, [(x, y)], verbose=False, eps=0.2, alpha=0.05)
    classifier = classifier_of(robust)
    with pytest.raises(ValueError, match="attack is an LGV without models; allowed: one after"):
        Evasion(classifier, lgv)
    other = digits_cnn(seed=5)
    lgv.load_models([other])
    with pytest.raises(ValueError, match="targeted is True, which LGV does not support"):
        Evasion(classifier, lgv, targeted=True)
    with preserved(robust, lgv):
        found = [Evasion(classifier, lgv).generate(*sample) for _ in range(2)]
    expected = torchattacks.BIM(other, eps=0.2, alpha=0.05)(x, y).numpy()
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], expected)


def test_in_art_s_adversarial_trainer(classifier_of):
    data = digits()
    model = digits_cnn()
    classifier = classifier_of(model, optimizer=torch.optim.Adam(model.parameters(), 2e-3))
    evasion = Evasion(classifier, torchattacks.PGD(model, eps=0.1, alpha=0.05, steps=2))
    trainer = AdversarialTrainer(classifier, evasion, ratio=0.5)
    one_hot = np.eye(10, dtype=np.float32)[data.y_train]
    trainer.fit(data.x_train, one_hot, nb_epochs=2, batch_size=64)
    assert np.mean(classifier.predict(data.x_test).argmax(1) == data.y_test) > 0.6


def test_in_the_lfr_trainer_reproducibly(classifier_of):
    data = digits()
    weights = []
    for adversarial in (True, True, False):
        classifier = classifier_of(digits_cnn())
        attack = torchattacks.PGD(classifier.model, eps=0.1, alpha=0.05, steps=2)
        trainer = AdversarialTrainerLFRPyTorch(
            classifier,
            eps=0.1,
            max_iter=1,
            attack=Evasion(classifier, attack) if adversarial else None,
            verbose=False,
        )
        trainer.fit(data.x_train[:128], data.y_train[:128], nb_epochs=1, batch_size=64)
        weights.append(torch.cat([p.detach().flatten() for p in classifier.model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_in_evaluate(robust, classifier_of):
    data = digits()
    attack = torchattacks.APGD(robust, eps=0.1, steps=5)
    x, y = data.x_test[:60], data.y_test[:60]
    result = evaluate(classifier_of(robust), x, y, eps=0.1, attacks=[attack], flatness_steps=0)
    found = Evasion(classifier_of(robust), attack).generate(x, y)
    correct = classifier_of(robust).predict(found).argmax(1) == y
    assert result.correct["APGD"].sum() == correct.sum()
    assert 0 < correct.sum() < result.correct["clean"].sum()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"attack": 3}, TypeError, "attack is a int; allowed: an attack object of torchattacks"),
        ({"targeted": 1}, TypeError, "targeted is a int; allowed: True or False"),
        ({"batch_size": 0}, ValueError, "batch_size is 0; allowed: an integer >= 1"),
        ({"seed": -1}, ValueError, "seed is -1; allowed: an integer >= 0, or None"),
    ],
)
def test_bad_arguments(robust, classifier_of, change, error, message):
    good = {"attack": torchattacks.PGD(robust), "targeted": False, "batch_size": 8, "seed": 0}
    with pytest.raises(error, match=message):
        Evasion(classifier_of(robust), **{**good, **change})
    evasion = Evasion(classifier_of(robust), **good)
    with pytest.raises(error, match=message):
        evasion.set_params(**change)
    assert {name: getattr(evasion, name) for name in good} == good
    evasion.set_params(batch_size=16)
    assert evasion.batch_size == 16


def test_attacks_and_data_that_cannot_be(robust, sample, classifier_of):
    x, y = sample
    classifier, attack = classifier_of(robust), torchattacks.PGD(robust)
    evasion = Evasion(classifier, attack)
    with pytest.raises(ValueError, match="allowed: inside the bounds"):
        evasion.generate(x + 3, y)
    with pytest.raises(TypeError, match=r"generate\(\) got an unexpected keyword argument 'mask'"):
        evasion.generate(x, y, mask=x)
    attack.set_mode_targeted_by_label(quiet=True)
    with pytest.raises(ValueError, match="targeted is False with a PGD in mode 'targeted"):
        evasion.generate(x, y)
    with pytest.raises(ValueError, match="targeted is True, which APGDT does not support"):
        Evasion(classifier, torchattacks.APGDT(robust), targeted=True)
    unbounded = Evasion(classifier_of(robust, clip_values=None), torchattacks.FGSM(robust))
    with pytest.raises(ValueError, match="torchattacks needs finite bounds"):
        unbounded.generate(x, y)
    with pytest.raises(TypeError, match="requires an estimator derived from"):
        Evasion(robust, attack)


def test_a_missing_library_is_named_with_its_mend(monkeypatch):
    for name in [n for n in sys.modules if n.startswith(("torchattacks", "art_lfr.torchattacks"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(ImportError, match=r'pip install "art-lfr\[torchattacks\]"'):
        importlib.import_module("art_lfr.torchattacks")
