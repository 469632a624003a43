"""Batches taken in parts, so that large ones fit into memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch

LFR = {"eps": 0.1, "max_iter": 2, "verbose": False}
PARTED = 15


def double(make_classifier, loss=None):
    """In float64, without layers that couple samples or draw masks: parts can then be exact."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).double()
    return make_classifier(model=model, loss=loss)


@pytest.mark.parametrize("penalty", ["lfr", "lfr-held", "llr"])
@pytest.mark.parametrize("loss", [None, "weighted"])
@pytest.mark.parametrize("perturbed", [None, 0.01])
def test_parts_give_the_step_of_the_whole_batch(
    make_classifier, data, weights, penalty, loss, perturbed
):
    def trained(largest):
        weighted = nn.CrossEntropyLoss(torch.linspace(0.1, 2, 10).double(), ignore_index=3)
        classifier = double(make_classifier, loss and weighted)
        trainer = AdversarialTrainerLFRPyTorch(
            classifier,
            **LFR,
            penalty=penalty,
            lam=0.05,
            weight_perturbation=perturbed,
            max_physical_batch_size=largest,
        )
        trainer.fit(data.x[:128], data.y[:128], batch_size=64, nb_epochs=2)
        return weights(classifier), trainer.history

    whole, history = trained(None)
    parts, history_of_parts = trained(PARTED)
    assert all(torch.allclose(whole[k], parts[k], atol=1e-9, rtol=0) for k in whole)
    for name in ("loss", "clean_loss", "flatness", "train_accuracy"):
        assert history[-1][name] == pytest.approx(history_of_parts[-1][name], abs=1e-9)


def test_no_pass_is_larger_than_asked_for(make_classifier, data):
    classifier = make_classifier()
    sizes = set()
    first = classifier.model[0]  # ART runs the layers of a Sequential one by one
    first.register_forward_pre_hook(lambda module, inputs: sizes.add(len(inputs[0])))
    attack = ProjectedGradientDescent(classifier, eps=0.1, max_iter=1, batch_size=99, verbose=False)
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, **LFR, attack=attack, max_physical_batch_size=PARTED
    )
    # None has a single sample, which BatchNorm could not take.
    trainer.fit(data.x[:51], data.y[:51], batch_size=51, nb_epochs=1)
    assert sizes == {12, 13}
    assert np.isfinite(trainer.history[-1]["loss"])


def test_bad_sizes(make_classifier):
    for value in (0, 2.5, "all"):
        with pytest.raises((ValueError, TypeError), match="max_physical_batch_size is"):
            AdversarialTrainerLFRPyTorch(make_classifier(), max_physical_batch_size=value)
