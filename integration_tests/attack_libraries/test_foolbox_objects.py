"""What the foolbox adapter does to the world around it, who can use it, and what it refuses."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from art.defences.trainer import AdversarialTrainer

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate
from art_lfr.attacks.named import AttackSpec
from art_lfr.core.randomness import RandomState
from art_lfr.data import digits
from art_lfr.models import digits_cnn

foolbox = pytest.importorskip(
    "foolbox", reason='foolbox is not installed: pip install "art-lfr[foolbox]"'
)
Evasion = importlib.import_module("art_lfr.foolbox").FoolboxEvasion
attacks = foolbox.attacks
CPU = torch.device("cpu")


def test_targets(robust, sample, classifier_of):
    x, y = sample
    classifier, targets = classifier_of(robust), (y + 3) % 10
    found = Evasion(classifier, attacks.DDNAttack(steps=60), targeted=True).generate(x, targets)
    assert (classifier.predict(found).argmax(1) == targets).all()
    for attack, targeted in ((attacks.GenAttack(), False), (attacks.FGSM(), True)):
        evasion = Evasion(classifier, attack, eps=0.1, targeted=targeted)
        with pytest.raises(ValueError, match=f"targeted is {targeted}, which .* does not support"):
            evasion.generate(x, targets)
    with pytest.raises(ValueError, match="y is None with targeted True"):
        Evasion(classifier, attacks.DDNAttack(), targeted=True).generate(x)


def test_all_comes_back_where_an_attack_raises(robust, sample, classifier_of, preserved):
    class Breaking(attacks.DDNAttack):
        def run(self, model, inputs, criterion, **kwargs):
            robust.train()
            np.random.rand(), torch.rand(2)
            self.steps = 0
            torch.nn.functional.cross_entropy(model(inputs).raw, criterion.labels.raw)
            raise KeyboardInterrupt

    attack = Breaking(steps=5)
    before = RandomState.capture(CPU)
    with preserved(robust), pytest.raises(KeyboardInterrupt):
        Evasion(classifier_of(robust), attack, seed=0).generate(*sample)
    assert not before.differs_from(RandomState.capture(CPU))
    assert attack.steps == 5


def test_in_trainers_and_in_evaluate(classifier_of):
    data = digits()
    x, y = data.x_train[:128], data.y_train[:128]
    model = digits_cnn()
    classifier = classifier_of(model)
    evasion = Evasion(classifier, attacks.LinfPGD(steps=2), eps=0.1)
    AdversarialTrainer(classifier, evasion).fit(x, np.eye(10)[y], nb_epochs=1, batch_size=64)
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, eps=0.1, max_iter=1, attack=evasion, verbose=False
    )
    trainer.fit(x, y, nb_epochs=1, batch_size=64)
    listed = [attacks.LinfPGD(steps=3), AttackSpec(attacks.DDNAttack(steps=5), eps=0.5, norm=2)]
    result = evaluate(classifier, x[:20], y[:20], eps=0.1, attacks=listed, flatness_steps=0)
    assert [row.name for row in result.rows[1:3]] == [type(listed[0]).__name__, "DDNAttack"]


@pytest.mark.parametrize(
    ("attack", "keywords", "error", "message"),
    [
        (3, {}, TypeError, "attack is a int; allowed: a foolbox attack"),
        (attacks.DDNAttack(), {"eps": -1}, ValueError, "eps is -1; allowed: a finite number >= 0"),
        (attacks.PGD(), {}, ValueError, "eps is None with LinfProjected"),
        (attacks.PointwiseAttack(), {"eps": 3}, ValueError, "eps is 3 with Pointwise.*no norm"),
        (attacks.SpatialAttack(), {"eps": 3}, ValueError, "eps is 3 with SpatialAttack.*no norm"),
        (attacks.GaussianBlurAttack(), {"eps": 3}, ValueError, "eps is 3 with GaussianBlur"),
    ],
)
def test_bad_arguments(robust, classifier_of, attack, keywords, error, message):
    with pytest.raises(error, match=message):
        Evasion(classifier_of(robust), attack, **keywords)


def test_bad_data(robust, sample, classifier_of):
    x, y = sample
    with pytest.raises(ValueError, match="starting_points are given to DDNAttack; allowed: None"):
        Evasion(classifier_of(robust), attacks.DDNAttack()).generate(x, y, starting_points=x)
    evasion = Evasion(classifier_of(robust), attacks.PointwiseAttack())
    with pytest.raises(ValueError, match="starting_points has 2 samples for 4 in x"):
        evasion.generate(x, y, starting_points=x[:2])
    with pytest.raises(ValueError, match="starting_points has values from"):
        evasion.generate(x, y, starting_points=x + 9)


def test_errors_of_an_attack_are_its_own(robust, sample, classifier_of):
    class Odd(attacks.DDNAttack):
        def run(self, model, inputs, criterion, **kwargs):
            raise ValueError("odd")

    with pytest.raises(ValueError, match=r"^odd$"):
        Evasion(classifier_of(robust), Odd()).generate(*sample)


def test_a_missing_library_is_named_with_its_mend(monkeypatch):
    for name in [n for n in sys.modules if n.startswith(("foolbox", "art_lfr.foolbox"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(ImportError, match=r'pip install "art-lfr\[foolbox\]"'):
        importlib.import_module("art_lfr.foolbox")
