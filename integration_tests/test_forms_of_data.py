"""Labels and inputs in every form that users have: the right value, or an error that names them.

The same for every function that takes data, for a module and for a classifier around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from art.attacks.evasion import FastGradientMethod
from lfr_testing import classifier_around
from torch import nn
from torch.utils.data import DataLoader

from art_lfr import (
    AdversarialTrainerLFRPyTorch,
    LocalFlatnessRegularization,
    evaluate,
    lfr_loss,
    local_flatness,
    masking_report,
)
from art_lfr.check import check_model
from art_lfr.masking import report

foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")

from art_lfr.foolbox import FoolboxEvasion  # noqa: E402
from art_lfr.torchattacks import ARTAttack, LocalFlatnessAttack, TorchattacksEvasion  # noqa: E402

FEATURES, CLASSES, COUNT, EPS = 6, 3, 8, 0.05
X = np.random.default_rng(0).random((COUNT, FEATURES), dtype=np.float32)
Y = np.arange(COUNT) % CLASSES
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[Y]
ORDER = np.random.default_rng(1).permutation(COUNT)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def classifier() -> Any:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return classifier_around(model, (FEATURES,), CLASSES, optimizer=optimizer)


def in_inference_mode(array: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.tensor(array) + 0


def reversed_strides(array: Any) -> Any:
    return np.ascontiguousarray(array[::-1])[::-1]


def every_second(array: Any) -> Any:
    return np.repeat(array, 2, axis=0)[::2]


def read_only(array: Any) -> Any:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def shuffled_index(kind: Callable[..., Any], array: Any) -> Any:
    """Rows in their order, under an index that is not, as `train_test_split` leaves it."""
    return kind(array, index=ORDER)


INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
GOOD_LABELS: dict[str, Any] = {
    **{name: Y.astype(name) for name in INTEGERS},
    "big-endian": Y.astype(">i4"),
    "big-endian unsigned": Y.astype(">u2"),
    "whole floats": Y.astype(float),
    "half floats": Y.astype(np.float16),
    "long floats": Y.astype(np.longdouble),
    "list": Y.tolist(),
    "tuple": tuple(Y.tolist()),
    "list of NumPy's": list(Y),
    "list of tensors": list(torch.tensor(Y)),
    "column": Y[:, None],
    "column of floats": Y[:, None].astype(float),
    "reversed strides": reversed_strides(Y),
    "not contiguous": every_second(Y),
    "read-only": read_only(Y),
    "Fortran one-hot": np.asfortranarray(ONE_HOT),
    "one-hot floats": ONE_HOT,
    "one-hot integers": ONE_HOT.astype(int),
    "one-hot bytes": ONE_HOT.astype(np.uint8),
    "one-hot booleans": ONE_HOT.astype(bool),
    "one-hot list": ONE_HOT.tolist(),
    "nothing masked": np.ma.masked_array(Y, mask=False),
    "series": shuffled_index(pandas.Series, Y),
    "nullable series": shuffled_index(pandas.Series, Y).astype("Int64"),
    "float series": shuffled_index(pandas.Series, Y).astype("Float32"),
    "categories": shuffled_index(pandas.Series, Y).astype("category"),
    "one column": shuffled_index(pandas.DataFrame, Y),
    "dummies": pandas.get_dummies(shuffled_index(pandas.Series, Y)),
    "long tensor": torch.tensor(Y),
    "int tensor": torch.tensor(Y, dtype=torch.int32),
    "byte tensor": torch.tensor(Y, dtype=torch.uint8),
    "float tensor": torch.tensor(Y).float(),
    "bfloat16 tensor": torch.tensor(Y).bfloat16(),
    "one-hot tensor": torch.tensor(ONE_HOT),
    "one-hot long tensor": torch.tensor(ONE_HOT).long(),
    "one-hot boolean tensor": torch.tensor(ONE_HOT).bool(),
    "inference tensor": in_inference_mode(Y),
    "tensor with a graph": torch.tensor(ONE_HOT, requires_grad=True),
}
GOOD_INPUTS: dict[str, Any] = {
    "float64": X.astype(np.float64),
    "big-endian": X.astype(">f4"),
    "long floats": X.astype(np.longdouble),
    "list": X.tolist(),
    "reversed strides": reversed_strides(X),
    "not contiguous": every_second(X),
    "Fortran": np.asfortranarray(X),
    "read-only": read_only(X),
    "nothing masked": np.ma.masked_array(X, mask=False),
    "frame": shuffled_index(pandas.DataFrame, X),
    "nullable frame": shuffled_index(pandas.DataFrame, X).astype("Float32"),
    "frame of two types": shuffled_index(pandas.DataFrame, X).astype({0: "Float32"}),
    "tensor": torch.tensor(X),
    "double tensor": torch.tensor(X).double(),
    "inference tensor": in_inference_mode(X),
    "tensor with a graph": torch.tensor(X, requires_grad=True),
}


def changed(array: Any, value: float) -> Any:
    copy = array.copy()
    copy[1] = value
    return copy


def rows(row: list[float]) -> Any:
    return np.concatenate([ONE_HOT[:-1], np.array([row], dtype=np.float32)])


BAD_LABELS: dict[str, Any] = {
    "a class too many": changed(Y, CLASSES),
    "negative": changed(Y, -1),
    "huge": changed(Y.astype(np.uint64), 2**64 - 1),
    "fraction": Y + 0.5,
    "huge float": changed(Y.astype(float), 1e30),
    "NaN": changed(Y.astype(float), np.nan),
    "infinite": changed(Y.astype(float), np.inf),
    "two ones": rows([1, 1, 0]),
    "no one": rows([0, 0, 0]),
    "row of NaN": rows([np.nan, 0, 1]),
    "negative row": rows([2, -1, 0]),
    "two ones, integers": rows([1, 1, 0]).astype(int),
    "two ones, booleans": rows([1, 1, 0]).astype(bool),
    "too wide": np.eye(CLASSES + 1)[Y],
    "too wide, integers": np.eye(CLASSES + 1, dtype=int)[Y],
    "too short": Y[:-1],
    "too long": np.append(Y, 0),
    "empty": Y[:0],
    "empty list": [],
    "one number": 1,
    "scalar array": np.array(1),
    "three axes": ONE_HOT[:, None],
    "complex": Y.astype(complex),
    "complex tensor": torch.tensor(Y).to(torch.complex64),
    "strings": [str(label) for label in Y],
    "one string": "labels",
    "objects": Y.astype(object),
    "dates": Y.astype("datetime64[s]"),
    "None": None,
    "dict": dict(enumerate(Y)),
    "ragged": [[0], *Y[1:].tolist()],
    "masked": np.ma.masked_array(Y, mask=Y == 1),
    "one of a list masked": [np.ma.masked, *Y[1:].tolist()],
    "missing in a series": pandas.Series(Y).where(Y != 1).astype("Int64"),
    "series of strings": pandas.Series([str(label) for label in Y]),
    "categories of strings": pandas.Series(list("abcabcab"), dtype="category"),
    "sparse": torch.tensor(ONE_HOT).to_sparse(),
    "meta": torch.empty(COUNT, device="meta"),
}
BAD_INPUTS: dict[str, Any] = {
    "NaN": changed(X, np.nan),
    "infinite": changed(X, np.inf),
    "outside": changed(X, 1.5),
    "integers": (255 * X).astype(np.uint8),
    "wide integers": (255 * X).astype(np.uint16),
    "booleans": X > 0.5,
    "complex": X.astype(complex),
    "objects": X.astype(object),
    "strings": X.astype(str),
    "one sample": X[0],
    "scalar": np.array(0.5),
    "empty": X[:0],
    "no features": X[:, :0],
    "one string": "images",
    "None": None,
    "ragged": [[0.5], *X[1:].tolist()],
    "masked": np.ma.masked_array(X, mask=X > 0.9),
    "list of masked rows": list(np.ma.masked_array(X, mask=X > 0.9)),
    "missing in a frame": pandas.DataFrame(X).where(X < 0.9).astype("Float32"),
    "frame of strings": pandas.DataFrame(X).astype(str),
    "sparse": torch.tensor(X).to_sparse(),
    "float8": torch.tensor(X).to(torch.float8_e4m3fn),
}


def weights_after(train: Callable[[Any], object]) -> Any:
    trained = classifier()
    train(AdversarialTrainerLFRPyTorch(trained, eps=EPS, max_iter=1, verbose=False))
    return trained.model[0].weight.detach()


def fitted(x: Any, y: Any) -> Any:
    return weights_after(
        lambda t: t.fit(x, y, nb_epochs=1, batch_size=4, validation_data=(x, y), resume=False)
    )


def fitted_by_loader(x: Any, y: Any) -> Any:
    # One batch, as a collate function of the user's own may give it.
    loader = DataLoader([0], collate_fn=lambda _: (x, y))
    return weights_after(lambda t: t.fit_loader(loader, nb_epochs=1))


def transformed(x: Any, y: Any) -> Any:
    student = classifier()
    transform = LocalFlatnessRegularization(
        classifier(), eps=EPS, max_iter=1, nb_epochs=1, verbose=False
    )
    return transform(x, student, y).model[0].weight.detach()


def judged(model: Any) -> Callable[[Any, Any], Any]:
    def judge(x: Any, y: Any) -> Any:
        found = evaluate(model, x, y, eps=EPS, attacks=["FGSM"], flatness_steps=1)
        return np.concatenate([found.flatness, found.correct["FGSM"]])

    return judge


def masked(x: Any, y: Any) -> Any:
    checks = masking_report(network(), x, y, eps=EPS).to_dict()["checks"]
    return np.array([check["figure"] or 0.0 for check in checks])


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "fit": fitted,
    "fit_loader": fitted_by_loader,
    "transformer": transformed,
    "lfr_loss": lambda x, y: lfr_loss(network(), x, y, eps=EPS, steps=2).total,
    "flatness of a module": lambda x, y: local_flatness(network(), x, y, eps=EPS, steps=2),
    "flatness of a classifier": lambda x, y: local_flatness(classifier(), x, y, eps=EPS, steps=2),
    "evaluate a module": judged(network()),
    "evaluate a classifier": judged(classifier()),
    "masking_report": masked,
    "torchattacks": lambda x, y: TorchattacksEvasion(
        classifier(), torchattacks.FGSM(network(), eps=EPS)
    ).generate(x, y),
    "foolbox": lambda x, y: FoolboxEvasion(classifier(), foolbox.attacks.FGSM(), eps=EPS).generate(
        x, y
    ),
}


@pytest.fixture(autouse=True)
def _few_samples_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FEWEST_SAMPLES", 0)
    monkeypatch.setattr(report, "gather_evidence", lambda target, other, clean: clean)
    monkeypatch.setattr(
        report,
        "judged",
        lambda clean: (report.Check("clean", "pass", "", float(clean.double().mean())),),
    )


def plain(value: Any) -> Any:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_data_in_any_form_gives_the_same(name: str) -> None:
    function = FUNCTIONS[name]
    right = plain(function(X, Y))
    for form, y in GOOD_LABELS.items():
        np.testing.assert_allclose(plain(function(X, y)), right, rtol=1e-5, atol=1e-7, err_msg=form)
    for form, x in GOOD_INPUTS.items():
        np.testing.assert_allclose(plain(function(x, Y)), right, rtol=1e-5, atol=1e-6, err_msg=form)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_data_is_named(name: str) -> None:
    function = FUNCTIONS[name]
    for parameter, forms in (("y", BAD_LABELS), ("x", BAD_INPUTS)):
        for form, value in forms.items():
            if parameter == "y" and value is None and name not in ("lfr_loss", "fit", "fit_loader"):
                continue  # attacks and the transformer then take predictions
            given = {"x": X, "y": Y, parameter: value}
            with pytest.raises((ValueError, TypeError)) as caught:
                function(given["x"], given["y"])
            message = str(caught.value)
            assert message.startswith(f"{parameter} "), f"{form}: {message}"
            assert type(caught.value).__name__ in ("UsageError", "WrongTypeError"), form
            assert "allowed" in message, f"{form}: {message}"


@pytest.mark.parametrize("kind", ["ARTAttack", "LocalFlatnessAttack"])
def test_attacks_of_torchattacks_take_the_same(kind: str) -> None:
    model = classifier()
    attack = (
        ARTAttack(FastGradientMethod(model, eps=EPS), seed=0)
        if kind == "ARTAttack"
        else LocalFlatnessAttack(model.model, eps=EPS, steps=2)
    )
    right = attack(torch.tensor(X), torch.tensor(Y))
    for form, y in GOOD_LABELS.items():
        np.testing.assert_allclose(attack(torch.tensor(X), y), right, atol=1e-6, err_msg=form)
    for form, x in GOOD_INPUTS.items():
        np.testing.assert_allclose(attack(x, Y), right, atol=1e-6, err_msg=form)
    for parameter, forms in (("labels", BAD_LABELS), ("inputs", BAD_INPUTS)):
        for form, value in forms.items():
            if value is None and parameter == "labels" and kind == "ARTAttack":
                continue  # it then takes predictions
            given = {"inputs": torch.tensor(X), "labels": Y, parameter: value}
            with pytest.raises((ValueError, TypeError)) as caught:
                attack(given["inputs"], given["labels"])
            # Only the loss knows the number of classes.
            assert str(caught.value).startswith((f"{parameter} ", "y ")), f"{form}: {caught.value}"


def test_check_model_takes_the_same_inputs() -> None:
    for form, x in GOOD_INPUTS.items():
        assert check_model(network(), x) == [], form
    for form in ("objects", "strings", "one string", "ragged", "masked", "sparse", "scalar"):
        with pytest.raises((ValueError, TypeError), match=r"^x (is|has) .*; allowed"):
            check_model(network(), BAD_INPUTS[form])


def test_integers_of_numpy() -> None:
    """As they come from loops over arrays and from grids of settings."""
    one, many = np.int64(1), np.uint8(4)
    for model in (network(), classifier()):
        found = local_flatness(model, X, Y, eps=EPS, steps=one, batch_size=many, seed=one)
        assert (found == local_flatness(model, X, Y, eps=EPS, steps=1, batch_size=4, seed=1)).all()
        evaluate(model, X, Y, eps=EPS, attacks="FGSM", batch_size=many, seed=many)
        masking_report(model, X, Y, eps=EPS, batch_size=many, seed=many)
    trainer = AdversarialTrainerLFRPyTorch(
        classifier(), eps=EPS, max_iter=one, verbose=False, seed=one, monitor_samples=many
    )
    trainer.fit(X, Y, batch_size=many, nb_epochs=one)
    assert len(trainer.history) == 1
    TorchattacksEvasion(
        classifier(), torchattacks.FGSM(network(), eps=EPS), batch_size=many, seed=many
    ).generate(X, Y)


@pytest.mark.parametrize("seed", [2**63, np.uint64(2**63), 10**40])
def test_a_seed_that_torch_does_not_take_is_named(seed: Any) -> None:
    for call in (
        lambda: local_flatness(network(), X, Y, eps=EPS, seed=seed),
        lambda: evaluate(network(), X, Y, eps=EPS, seed=seed),
        lambda: AdversarialTrainerLFRPyTorch(classifier(), seed=seed),
        lambda: TorchattacksEvasion(classifier(), torchattacks.FGSM(network()), seed=seed),
    ):
        with pytest.raises(ValueError, match=r"seed is .*; allowed: an integer from 0 to 2\*\*63"):
            call()
