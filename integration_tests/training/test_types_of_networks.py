"""What `fit` trains, `predict` and `evaluate` take: other types, objects with logits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate
from art_lfr.errors import UsageError


class WithLogits(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return SimpleNamespace(logits=self.network(x))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


KINDS = {
    "float64": lambda: network().double(),
    "bfloat16": lambda: network().bfloat16(),
    "logits": lambda: WithLogits(network()),
    "logits in float64": lambda: WithLogits(network().double()),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_they_are_trained_predicted_and_judged(make_classifier, data, make):
    classifier, plain = make_classifier(model=make()), make_classifier(model=network())
    found = []
    for each in (classifier, plain):
        trainer = AdversarialTrainerLFRPyTorch(each, eps=0.1, max_iter=1, verbose=False)
        trainer.fit(data.x[:256], data.y[:256], nb_epochs=2, batch_size=32)
        logits = trainer.predict(data.x_test[:50])
        table = evaluate(
            each,
            data.x_test[:30],
            data.y_test[:30],
            eps=0.05,
            attacks=["PGD-40", "FGSM", "Square"],
            metrics="loss_sensitivity",
        )
        found.append((logits, [row.accuracy for row in table.rows], table.metrics))
    assert found[0][0].dtype == np.float32
    # Start noise of another type is another noise.
    np.testing.assert_allclose(found[0][0], found[1][0], atol=0.3)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=0.1)
    assert found[0][2] == pytest.approx(found[1][2], rel=0.05)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_an_attack_object_that_art_cannot_run_is_named(make_classifier, data, make):
    classifier = make_classifier(model=make())
    attack = FastGradientMethod(classifier, eps=0.05)
    with pytest.raises(UsageError, match="FastGradientMethod around a network that ART itself"):
        evaluate(classifier, data.x_test[:10], data.y_test[:10], eps=0.05, attacks=[attack])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_training_leaves_a_mode_without_gradients(make_classifier, data, weights, same, mode):
    found = []
    for context in (mode(), torch.enable_grad()):
        classifier = make_classifier()
        with context:
            trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=1, verbose=False)
            trainer.fit(data.x[:64], data.y[:64], nb_epochs=1)
        found.append(weights(classifier))
    assert same(*found)
