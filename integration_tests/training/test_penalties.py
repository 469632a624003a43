"""The trainer with other penalties, and with perturbed weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from lfr_testing import SquaredLogits
from torch import Tensor, nn

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.penalties import PENALTIES, Penalty
from art_lfr.training.weight_perturbation import perturbed_weights

Maker = Callable[..., PyTorchClassifier]


def train(classifier: PyTorchClassifier, **keywords: object) -> AdversarialTrainerLFRPyTorch:
    x = np.random.default_rng(0).random((32, 1, 8, 8)).astype(np.float32)
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, eps=0.1, max_iter=2, verbose=False, **keywords
    )
    trainer.fit(x, np.arange(32) % 10, nb_epochs=1, batch_size=16)
    return trainer


def weights(classifier: PyTorchClassifier) -> Tensor:
    return torch.cat([p.detach().flatten() for p in classifier.model.parameters()])


@pytest.mark.parametrize(
    "penalty", [*sorted(PENALTIES), pytest.param(SquaredLogits(), id="of the user's own")]
)
def test_trainer_takes_every_penalty(make_classifier: Maker, penalty: str | Penalty) -> None:
    with_it, without = make_classifier(), make_classifier()
    weighted = penalty != "adversarial-training"
    trainer = train(with_it, penalty=penalty, lam=0.3 if weighted else None)
    train(without, lam=0.0)
    assert (trainer.history[0]["flatness"] != 0) == weighted
    assert torch.isfinite(weights(with_it)).all()
    # It shapes the weights: the same training without it ends elsewhere.
    assert not torch.equal(weights(with_it), weights(without))


def test_trainer_refuses_an_unknown_penalty_before_it_trains(make_classifier: Maker) -> None:
    classifier = make_classifier()
    before = weights(classifier)
    with pytest.raises(ValueError, match="penalty is 'none'"):
        train(classifier, penalty="none")
    with pytest.raises(ValueError, match="lam is None with penalty 'llr'"):
        train(classifier, penalty="llr")
    with pytest.raises(ValueError, match="weight_perturbation is -1"):
        train(classifier, weight_perturbation=-1.0)
    assert torch.equal(before, weights(classifier))


def test_weight_perturbation_of_size_zero_changes_nothing(make_classifier: Maker) -> None:
    # With dropout and BatchNorm: the extra passes draw the same masks and move no statistics.
    plain, zero, moved = make_classifier(), make_classifier(), make_classifier()
    train(plain)
    train(zero, weight_perturbation=0.0)
    train(moved, weight_perturbation=0.05)
    assert torch.equal(weights(plain), weights(zero))
    for a, b in zip(plain.model.buffers(), zero.model.buffers(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(weights(plain), weights(moved))


def test_perturbed_weights_climb_by_their_size_and_come_back() -> None:
    layer = nn.Linear(4, 3)
    before = [p.detach().clone() for p in layer.parameters()]
    x = torch.rand(5, 4)

    def loss() -> Tensor:
        return layer(x).square().mean()

    loss().backward()
    here = loss().detach()

    def look() -> None:
        moved = layer.weight.detach() - before[0]
        torch.testing.assert_close(moved.norm(), 0.1 * before[0].norm())
        assert torch.equal(layer.bias, before[1])
        assert loss().detach() > here
        raise KeyError("a failure inside")

    with pytest.raises(KeyError, match="a failure inside"), perturbed_weights(layer, 0.1):
        look()
    assert torch.equal(layer.weight, before[0])
