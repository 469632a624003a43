"""Every bad input is refused by name, with its value and what is allowed, before weights change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from art.defences.preprocessor import JpegCompression
from art.estimators.classification import SklearnClassifier
from sklearn.linear_model import LogisticRegression

from art_lfr import AdversarialTrainerLFRPyTorch, LocalFlatnessRegularization, local_flatness

X = np.full((20, 1, 8, 8), 0.5, dtype=np.float32)
Y = np.arange(20) % 10


def changed(array, index, value):
    copy = array.copy()
    copy[index] = value
    return copy


BAD_SETTINGS = [
    ({"eps": -0.1}, "eps is -0.1"),
    ({"eps": float("nan")}, "eps is nan"),
    ({"eps": "0.1"}, "eps is '0.1'"),
    ({"lam": -1.0}, "lam is -1.0"),
    ({"radius": -0.01}, "radius is -0.01"),
    ({"radius": 0.0}, "radius is 0.0"),
    ({"max_iter": -1}, "max_iter is -1"),
    ({"max_iter": 2.5}, "max_iter is 2.5"),
    ({"eps_step": 0.0}, "eps_step is 0.0"),
    ({"norm": 3}, "norm is 3"),
    ({"norm": "l3"}, "norm is 'l3'"),
    ({"estimator": "exakt"}, "did you mean 'exact'"),
    ({"batch_norm": "frozen"}, "batch_norm is 'frozen'"),
    ({"warmup_epochs": -1}, "warmup_epochs is -1"),
    ({"ema_decay": 1.0}, "ema_decay is 1.0"),
    ({"max_grad_norm": 0}, "max_grad_norm is 0"),
    ({"best_metric": "validation_acuracy"}, "did you mean 'validation_accuracy'"),
    ({"patience": 3}, "patience is 3"),
    ({"augment": "flip"}, "augment is 'flip'"),
    ({"seed": -1}, "seed is -1"),
    ({"attack": "pgd"}, "attack is a str"),
    ({"summary_writer": 3}, "summary_writer is 3"),
    ({"epss": 0.1}, "did you mean 'eps'"),
    ({"num_iterations": 3}, "num_iterations"),
]


@pytest.mark.parametrize(("keywords", "message"), BAD_SETTINGS, ids=lambda v: str(v)[:40])
def test_settings(make_classifier, keywords, message):
    with pytest.raises((ValueError, TypeError), match=message):
        AdversarialTrainerLFRPyTorch(make_classifier(), **keywords)
    classifier, trained = make_classifier(), make_classifier(seed=1)
    with pytest.raises((ValueError, TypeError), match=message):
        LocalFlatnessRegularization(classifier, verbose=False, **keywords)(X, trained, Y)


BAD_DATA = [
    (changed(X, (0, 0, 0, 0), np.nan), Y, "x holds NaN"),
    (changed(X, (3, 0, 0, 0), np.inf), Y, "x holds NaN or infinite"),
    (changed(X, (0, 0, 0, 0), 1.5), Y, r"x has values from 0.5 to 1.5; allowed: inside"),
    (X * 255, Y, "x has values from 127.5 to 127.5"),
    ((X * 255).astype(np.uint8), Y, "x has dtype torch.uint8"),
    (X.reshape(20, 8, 8, 1), Y, r"x has shape \(20, 8, 8, 1\)"),
    (X[:0], Y[:0], r"x has shape \(0, 1, 8, 8\)"),
    (X, changed(Y, 0, 10), "y has labels from 0 to 10; allowed: 0 to 9"),
    (X, Y - 1, "y has labels from -1 to 8"),
    (X, Y[:19], r"y has shape \(19,\) for 20 samples"),
    (X, np.eye(11)[Y], r"y has shape \(20, 11\)"),
    (X, np.full((20, 10), 0.1), "one-hot"),
    (X, Y + 0.5, "y has the label 0.5; allowed: integer labels"),
    ("images", Y, "x is a str"),
]


@pytest.mark.parametrize(("x", "y", "message"), BAD_DATA, ids=[m[2][:45] for m in BAD_DATA])
def test_data(make_classifier, weights, same, x, y, message):
    classifier = make_classifier()
    before = weights(classifier)
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, verbose=False)
    with pytest.raises((ValueError, TypeError), match=message):
        trainer.fit(x, y, nb_epochs=1)
    with pytest.raises((ValueError, TypeError), match="validation_data"):
        trainer.fit(X, Y, nb_epochs=1, validation_data=(x, y))
    with pytest.raises((ValueError, TypeError), match=message):
        local_flatness(classifier, x, y, eps=0.1)
    assert same(weights(classifier), before)
    assert trainer.history == []


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"nb_epochs": 0}, "nb_epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"scheduler": 3}, "scheduler is 3"),
        ({"scheduler_interval": "step"}, "scheduler_interval is 'step'"),
        ({"validation_data": X}, "validation_data is a ndarray"),
        ({"resume": True}, "checkpoint_dir None"),
        ({"checkpoint_dir": 3}, "checkpoint_dir is 3"),
        ({"callback": 3}, "callback is 3"),
        ({"epochs": 3}, "did you mean 'nb_epochs'"),
    ],
    ids=str,
)
def test_fit_arguments(make_classifier, weights, same, keywords, message):
    classifier = make_classifier()
    before = weights(classifier)
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, verbose=False)
    with pytest.raises((ValueError, TypeError), match=message):
        trainer.fit(X, Y, **keywords)
    assert same(weights(classifier), before)


def test_a_metric_of_validation_needs_validation_data(make_classifier):
    trainer = AdversarialTrainerLFRPyTorch(
        make_classifier(), eps=0.1, best_metric="validation_accuracy", verbose=False
    )
    with pytest.raises(ValueError, match="best_metric is 'validation_accuracy' without"):
        trainer.fit(X, Y)


def test_a_swap_of_the_class_name_alone_is_an_error(make_classifier):
    """The second positional argument of ART's TRADES trainer is the attack."""
    classifier = make_classifier()
    with pytest.raises(TypeError, match="what ART's TRADES or AWP trainer takes"):
        AdversarialTrainerLFRPyTorch(classifier, FastGradientMethod(classifier), 6.0)


class NoReduction(torch.nn.Module):
    def forward(self, outputs, y):
        return (outputs - y).square().mean()


def test_classifiers(make_classifier):
    inputs = X.reshape(20, -1) + np.arange(20)[:, None]
    sklearn = SklearnClassifier(LogisticRegression(max_iter=5000).fit(inputs, Y))
    jpeg = JpegCompression(clip_values=(0, 1), channels_first=True)
    foreign = make_classifier()
    foreign._optimizer = make_classifier(seed=1).optimizer
    refused = [
        (sklearn, TypeError, "classifier is a ScikitlearnLogisticRegression"),
        (torch.nn.Linear(2, 2), TypeError, "classifier is a Linear"),
        (make_classifier(optimizer=False), ValueError, "classifier has optimizer None"),
        (
            make_classifier(preprocessing_defences=jpeg),
            ValueError,
            "preprocessing defence JpegCompression",
        ),
        (make_classifier(loss=NoReduction()), ValueError, "NoReduction, which has no `reduction`"),
        (foreign, ValueError, "optimizer over none of its model's parameters"),
    ]
    for classifier, error, message in refused:
        with pytest.raises(error, match=message):
            AdversarialTrainerLFRPyTorch(classifier)


def test_attacks(make_classifier):
    classifier = make_classifier()
    targeted = FastGradientMethod(classifier, targeted=True)
    with pytest.raises(ValueError, match="attack is a targeted FastGradientMethod"):
        AdversarialTrainerLFRPyTorch(classifier, attack=targeted)
    with pytest.raises(ValueError, match="attack is an empty list"):
        AdversarialTrainerLFRPyTorch(classifier, attack=[])
    for ratio in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"ratio is {ratio}"):
            AdversarialTrainerLFRPyTorch(
                classifier, attack=FastGradientMethod(classifier), ratio=ratio
            )


def test_a_frozen_network_is_refused(make_classifier):
    classifier = make_classifier()
    classifier.model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        AdversarialTrainerLFRPyTorch(classifier, verbose=False).fit(X, Y)


@pytest.mark.parametrize("generator", [None, [1, 2]])
def test_generators(make_classifier, generator):
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), verbose=False)
    with pytest.raises(TypeError, match="generator is a"):
        trainer.fit_generator(generator)


def test_a_classifier_brings_its_own_loss_and_bounds(make_classifier):
    for keywords in ({"bounds": (0.0, 2.0)}, {"loss": torch.nn.MultiMarginLoss()}):
        with pytest.raises(ValueError, match=f"{next(iter(keywords))} is .* beside the model's"):
            local_flatness(make_classifier(), X, Y, eps=0.1, **keywords)
