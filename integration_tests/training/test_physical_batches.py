"""Batches taken in parts, so that large ones fit into memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
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
    for name in ("loss", "clean_loss", "flatness", "train_accuracy", "gradient_norm"):
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
    # The pass of one counts, in eval mode, what the convolutions have to do.
    assert sizes == {1, 12, 13}
    assert np.isfinite(trainer.history[-1]["loss"])


def test_a_part_whose_labels_are_all_ignored_weighs_nothing(make_classifier, data, weights):
    def trained(largest):
        classifier = double(make_classifier, nn.CrossEntropyLoss(ignore_index=3))
        trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR, max_physical_batch_size=largest)
        y = data.y[:16].copy()
        y[:] = np.where(np.arange(16) < 14, 3, 5)
        trainer.fit(data.x[:16], y, batch_size=16, nb_epochs=3)
        return weights(classifier)

    whole, parts = trained(None), trained(4)
    assert all(torch.allclose(whole[k], parts[k], atol=1e-9, rtol=0) for k in whole)


def test_batch_norm_never_gets_a_single_sample(make_classifier, data):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    trainer = AdversarialTrainerLFRPyTorch(
        make_classifier(model=model), **LFR, max_physical_batch_size=2
    )
    trainer.fit(data.x[:7], data.y[:7], batch_size=4, nb_epochs=1)
    assert np.isfinite(trainer.history[0]["loss"])


def test_the_attacked_samples_are_those_of_the_whole_batch(make_classifier, data, weights):
    """A tenth of 64 samples, drawn for the batch, not one of each small part."""

    def trained(largest):
        classifier = double(make_classifier)
        classifier.model.float()  # as ART's attacks need it
        attack = FastGradientMethod(classifier, eps=0.1, batch_size=99)
        trainer = AdversarialTrainerLFRPyTorch(
            classifier, **LFR, attack=attack, ratio=0.1, max_physical_batch_size=largest
        )
        trainer.fit(data.x[:128], data.y[:128], batch_size=64, nb_epochs=2)
        return weights(classifier)

    whole, parts = trained(None), trained(5)
    assert all(torch.allclose(whole[k], parts[k], atol=1e-5, rtol=0) for k in whole)


def test_a_run_goes_on_in_smaller_parts(make_classifier, data, tmp_path):
    for epochs, largest in ((1, None), (2, 16)):
        trainer = AdversarialTrainerLFRPyTorch(
            make_classifier(), **LFR, max_physical_batch_size=largest
        )
        trainer.fit(
            data.x[:64], data.y[:64], nb_epochs=epochs, checkpoint_dir=tmp_path, resume=True
        )
    assert [record["epoch"] for record in trainer.history] == [1, 2]


def test_bad_sizes(make_classifier):
    for value in (0, 2.5, "all"):
        with pytest.raises((ValueError, TypeError), match="max_physical_batch_size is"):
            AdversarialTrainerLFRPyTorch(make_classifier(), max_physical_batch_size=value)
