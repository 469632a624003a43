"""Bad inputs that hypothesis makes up: each is refused by an error that names the culprit.

Never a wrong number, a hang, a traceback from inside torch, or changed weights.
"""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lfr_testing import classifier_around
from torch import nn

import art_lfr
from art_lfr import plots
from art_lfr.autoattack import run_autoattack
from art_lfr.check.model import check_model
from art_lfr.evaluation import accuracy_curve
from art_lfr.tuning import tune

X = np.random.default_rng(0).random((24, 1, 6, 6), dtype=np.float32)
Y = np.arange(24) % 3

anything = st.one_of(
    st.text(max_size=5), st.lists(st.floats(), max_size=2), st.complex_numbers(), st.binary()
)
not_finite = st.sampled_from([math.nan, math.inf, -math.inf])
negative = st.floats(max_value=-1e-9, allow_infinity=False)
fraction = st.floats(allow_nan=False).filter(lambda value: not float(value).is_integer())


def changed(array: np.ndarray, value: float) -> st.SearchStrategy[Any]:
    """The array with one element set to the value."""

    def put(place: int) -> np.ndarray:
        copy = array.astype(np.float32 if array is X else array.dtype)
        copy.flat[place] = value
        return copy

    return st.integers(0, array.size - 1).map(put)


# Bad values by the kind of a parameter. What a kind refuses, each of its parameters must refuse.
BAD: dict[str, st.SearchStrategy[Any]] = {
    "length": st.one_of(anything, not_finite, negative, st.booleans()),
    "count": st.one_of(anything, not_finite, fraction, st.integers(max_value=-1), st.booleans()),
    "choice": st.one_of(anything.filter(lambda value: value != "rand"), st.integers(), st.floats()),
    "names": st.one_of(anything, st.integers(), st.floats()).filter(
        lambda value: not hasattr(value, "__len__") or len(value)
    ),
    "flag": st.one_of(anything, st.integers(2), st.floats(2)),
    "norm": st.one_of(
        anything.filter(lambda value: value not in ("1", "2")), negative, st.floats(2.001, 1e9)
    ),
    "bounds": st.one_of(
        st.tuples(st.floats(1, 9), st.floats(-9, 0.9)),
        st.tuples(st.just(math.nan), st.just(1.0)),
        st.tuples(st.floats(0, 1)),
        st.text(max_size=3),
        st.floats(),
    ),
    "x": st.one_of(
        changed(X, math.nan),
        changed(X, math.inf),
        changed(X, 1.5),
        changed(X, -3.0),
        st.sampled_from([X[:0], X[0, 0, 0, 0], (255 * X).astype(np.uint8), "images", None, {}]),
    ),
    "y": st.one_of(
        changed(Y, 3),
        changed(Y, -1),
        st.integers(1, 23).map(lambda count: Y[:count]),
        st.sampled_from([Y[:0], np.eye(4)[Y], Y + 0.5, "labels", None, Y[:, None, None]]),
    ),
    "model": st.sampled_from([None, 3, "network", nn.Linear, [nn.Linear(36, 3)]]),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def inside_no_bounds(x: Any) -> bool:
    """Whether x is bad only because of values outside the bounds."""
    return isinstance(x, np.ndarray) and (1.5 in x or -3.0 in x)


def trained() -> PyTorchClassifier:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return classifier_around(model, (1, 6, 6), 3, optimizer=optimizer)


def on_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with arrays turned into tensors as a user of plain PyTorch has them."""

    @functools.wraps(function)
    def call(model: Any, x: Any, y: Any, **keywords: Any) -> Any:
        x, y = (torch.tensor(a) if isinstance(a, np.ndarray) else a for a in (x, y))
        return function(model, x, y, **keywords)

    return call


def train(x: Any, y: Any, **keywords: Any) -> None:
    """Both of the trainer's sets of arguments, in one call; no weight may change."""
    fit = {k: keywords.pop(k) for k in ("nb_epochs", "batch_size", "resume") if k in keywords}
    classifier = keywords.pop("model", None) or trained()
    before = [p.clone() for p in network().parameters()]
    try:
        settings = {"verbose": False, **keywords}
        trainer = art_lfr.AdversarialTrainerLFRPyTorch(classifier, **settings)
        trainer.fit(x, y, **{"nb_epochs": 1, **fit})
    finally:
        if isinstance(classifier, PyTorchClassifier):
            after = classifier.model.parameters()
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def tuned(x: Any, y: Any, **keywords: Any) -> None:
    tune(trained, x, y, **keywords)


BALL = {"eps": "length", "norm": "norm", "bounds": "bounds"}
BATCH = {"model": "model", "x": "x", "y": "y"}
ASCENT = {"estimator": "choice", "radius": "length"}
RUN = {"batch_size": "count", "seed": "count"}
STEP = {**ASCENT, "batch_norm": "choice", "renew_every": "count", "autocast": "flag"}
# Each function with what it is given when all is well, and the kinds of its parameters.
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
    "local_flatness": (
        art_lfr.local_flatness,
        {**BATCH, **BALL, **ASCENT, **RUN, "steps": "count", "step_size": "length"}
        | {"restarts": "count"},
    ),
    "lfr_loss": (
        on_tensors(art_lfr.lfr_loss),
        {**BATCH, **BALL, **STEP, "lam": "length", "steps": "count", "step_size": "length"},
    ),
    "trainer": (
        train,
        {"x": "x", "y": "y", "eps": "length", "norm": "norm", **STEP, **RUN, "lam": "length"}
        | {"max_iter": "count", "eps_step": "length", "warmup_epochs": "length"}
        | {"ratio": "length", "max_grad_norm": "length", "weight_perturbation": "length"}
        | {"max_physical_batch_size": "count", "ema_decay": "length", "patience": "count"}
        | {
            "monitor_samples": "count",
            "verbose": "flag",
            "warm_start": "flag",
            "nb_epochs": "count",
            "resume": "flag",
        },
    ),
    "evaluate": (
        art_lfr.evaluate,
        {**BATCH, **BALL, **RUN, "attacks": "names"}
        | {"flatness_steps": "count", "metrics": "names", "verbose": "flag"},
    ),
    "masking_report": (art_lfr.masking_report, {**BATCH, **BALL, **RUN}),
    "accuracy_curve": (accuracy_curve, {**BATCH, "norm": "norm", "bounds": "bounds", **RUN}),
    "run_autoattack": (run_autoattack, {**BATCH, **BALL, **RUN, "version": "choice"}),
    "loss_surface": (
        plots.loss_surface,
        {**BATCH, **BALL, **RUN, "points": "count", "steps": "count", "restarts": "count"},
    ),
    "vulnerability": (
        plots.vulnerability,
        {**BATCH, **BALL, **RUN, "steps": "count", "restarts": "count"},
    ),
    "gradient_maps": (plots.gradient_maps, {**BATCH, "batch_size": "count"}),
    "check_model": (
        lambda model, x, y, eps, **keywords: check_model(model, x, **keywords),
        {"model": "model", "estimator": "choice", "batch_size": "count", "bounds": "bounds"},
    ),
    "tune": (
        tuned,
        {"x": "x", "y": "y", "eps": "length", "norm": "norm", **RUN, "minutes": "length"}
        | {"clean_floor": "length", "held_out": "count", "epochs": "count", "max_iter": "count"}
        | {"attacks": "names"},
    ),
}
INPUTS = 500
quietly = settings(
    max_examples=-(-INPUTS // len(FUNCTIONS)),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    function, kinds = FUNCTIONS[name]

    @quietly
    @given(st.data())
    def refused(draw: Any) -> None:
        parameter = draw.draw(st.sampled_from(sorted(kinds)))
        value = draw.draw(BAD[kinds[parameter]])
        given = {"model": network(), "x": X, "y": Y, "eps": 0.1, parameter: value}
        if name in ("trainer", "tune"):
            given = {k: v for k, v in given.items() if k != "model" or parameter == "model"}
        if name == "gradient_maps":  # it has no bounds: only what is not finite is bad
            del given["eps"]
            assume(parameter != "x" or not inside_no_bounds(value))
        if name == "accuracy_curve":
            given["eps"] = [given["eps"]]
        shown = f"{parameter}={value!r}"
        try:
            function(**given)
        except (ValueError, TypeError) as found:
            error = found
        else:
            raise AssertionError(f"{shown} was taken")
        assert parameter in str(error), f"{shown}: {error}"
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        assert Path(last).is_relative_to(Path(art_lfr.__file__).parent), f"{shown}: {last}"

    refused()
