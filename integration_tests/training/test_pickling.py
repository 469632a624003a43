"""A trainer pickles and is copied as ART's are, and goes on as the original does."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from art.attacks.evasion import FastGradientMethod

from art_lfr import AdversarialTrainerLFRPyTorch

SETTINGS = {
    "plain": {},
    "average": {"ema_decay": 0.9, "best_metric": "loss"},
    "warm start": {"warm_start": True},
    "another penalty": {"penalty": "llr", "lam": 0.1},
    "attack": {"attack": FastGradientMethod},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(
    "copied", [lambda t: pickle.loads(pickle.dumps(t)), copy.deepcopy], ids=["pickle", "deepcopy"]
)
def test_it_goes_on_to_the_same_weights(make_classifier, data, weights, same, settings, copied):
    classifier = make_classifier()
    if "attack" in settings:
        settings = {"attack": settings["attack"](classifier, eps=0.1)}
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, eps=0.1, max_iter=2, verbose=False, **settings
    )

    def go_on(trainer):
        trainer.fit(data.x[:96], data.y[:96], batch_size=32, nb_epochs=1)
        return weights(trainer.classifier)

    go_on(trainer)
    other = copied(trainer)
    assert other.history == trainer.history
    assert same(weights(other.classifier), weights(classifier))
    expected = go_on(trainer)
    assert not same(weights(other.classifier), expected)  # nothing is shared
    assert same(go_on(other), expected)
    own = {id(parameter) for parameter in other.classifier.model.parameters()}
    groups = other.classifier.optimizer.param_groups
    assert {id(parameter) for group in groups for parameter in group["params"]} == own


def test_a_trainer_that_has_not_trained(make_classifier, data):
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), eps=0.1, max_iter=1, verbose=False)
    other = pickle.loads(pickle.dumps(trainer))
    for each in (trainer, other):
        torch.manual_seed(torch.initial_seed() + 1)  # the global state has no say
        each.fit(data.x[:64], data.y[:64], nb_epochs=1)
    shown = [
        {k: v for k, v in t.history[0].items() if not k.endswith("seconds")}
        for t in (trainer, other)
    ]
    assert shown[0] == shown[1]
