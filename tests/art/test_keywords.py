"""The trainer's keywords: those of a type checker are those that run, under the same defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, LocalFlatnessRegularization
from art_lfr.art.trainer import AllTrainerKeywords, RunKeywords
from art_lfr.core.keywords import LFRKeywords, TrainingKeywords
from art_lfr.core.settings import LFRSettings
from art_lfr.training.options import TrainingOptions
from art_lfr.tuning.run import tune
from art_lfr.tuning.trial import TunedKeywords


def keywords_in(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def test_type_checkers_see_what_runs():
    trainer = keywords_in(AdversarialTrainerLFRPyTorch)
    assert set(trainer) == set(AllTrainerKeywords.__annotations__)
    assert set(keywords_in(LocalFlatnessRegularization)) == {*trainer, "batch_size", "nb_epochs"}
    for fit in ("fit", "fit_generator", "fit_loader"):
        taken = keywords_in(getattr(AdversarialTrainerLFRPyTorch, fit))
        assert set(taken) - {"validation_data"} == set(RunKeywords.__annotations__)
    assert set(TunedKeywords.__annotations__) <= set(keywords_in(tune)) & set(trainer)


def test_each_definition_is_whole():
    """No setting without a keyword, and no keyword without a setting."""
    renamed = {"steps", "step_size", "eps", "norm"}
    assert set(keywords_in(LFRSettings)) == renamed | set(LFRKeywords.__annotations__)
    beside = {"augment", "seed", "verbose"}
    assert set(keywords_in(TrainingOptions)) == beside | set(TrainingKeywords.__annotations__)


def test_defaults_are_those_of_the_settings():
    trainer = keywords_in(AdversarialTrainerLFRPyTorch)
    for name, default in {**keywords_in(TrainingOptions), **keywords_in(LFRSettings)}.items():
        name = {"steps": "max_iter", "step_size": "eps_step"}.get(name, name)
        if name == "max_iter":  # the trainer's ascents go on from epoch to epoch
            assert (trainer[name], default) == (2, 10)
        elif name != "eps":  # the settings have none
            assert trainer[name] == default, name


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("steps", "max_iter"), ("step_size", "eps_step"), ("alpha", "eps_step"), ("epsilon", "eps")],
)
def test_names_that_users_mix_up(wrong, right):
    with pytest.raises(TypeError, match=f"{wrong!r}; did you mean {right!r}"):
        AdversarialTrainerLFRPyTorch(None, **{wrong: 1})


def test_the_call_of_arts_other_trainers_is_answered_with_the_one_to_write() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    classifier = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        (1, 2, 2),
        2,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        clip_values=(0.0, 1.0),
    )
    attack = ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.02, max_iter=5)
    written = r"write AdversarialTrainerLFRPyTorch\(classifier, norm=.*, eps=0.1, eps_step=0.02, "
    trainer: Any = AdversarialTrainerLFRPyTorch
    trades = r"max_iter=5, penalty='trades', lam=5.0\)"
    for positional, named, rest in (
        ((attack,), {"beta": 5.0}, trades),
        ((attack, 5.0), {}, trades),
        ((), {"attack": attack, "beta": 5.0}, trades),
        ((classifier, attack), {"mode": "PGD", "gamma": 0.01}, r"max_iter=5\)"),
    ):
        with pytest.raises(TypeError, match=written + rest):
            trainer(classifier, *positional, **named)
    with pytest.raises(TypeError, match=r"give it to fit\(x, y, nb_epochs=3\)"):
        trainer(classifier, nb_epochs=3)
    with pytest.warns(UserWarning, match=r"attack has eps 0.1, the trainer eps 0.3: is that meant"):
        trainer(classifier, eps=0.3, attack=attack)
