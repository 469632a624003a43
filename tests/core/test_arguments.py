"""Bad input: each error names the parameter, its value and what is allowed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from art_lfr.core.arguments import check_integer, check_number
from art_lfr.core.keywords import LFRKeywords
from art_lfr.core.samples import as_tensor, class_labels
from art_lfr.core.settings import LFRSettings
from art_lfr.loss import LFRLoss, LossKeywords, lfr_loss
from art_lfr.measure import MeasureKeywords, local_flatness

Call = Callable[..., Any]
X, Y = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])
NAN = float("nan")


def loss_object(model: nn.Module, x: Any, y: Any, **keywords: Any) -> Any:
    return LFRLoss(**keywords)(model, x, y)


@pytest.fixture(params=[lfr_loss, loss_object, local_flatness])
def call(request: pytest.FixtureRequest) -> Call:
    """Each entry point, on a model of 6 features and 3 classes that must come out unchanged."""
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run(x: Any = X, y: Any = Y, **keywords: Any) -> Any:
        keywords.setdefault("eps", 0.1)
        try:
            return request.param(keywords.pop("model", model), x, y, **keywords)
        except Exception:
            assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
            raise

    return run


NUMBER = "allowed: a finite number"
SETTINGS: list[tuple[str, Any, type[Exception], str]] = [
    ("eps", -0.1, ValueError, f"eps is -0.1; {NUMBER} >= 0"),
    ("eps", math.inf, ValueError, f"eps is inf; {NUMBER}"),
    ("eps", NAN, ValueError, f"eps is nan; {NUMBER}"),
    ("eps", 10**400, ValueError, rf"eps is 1000+; {NUMBER}"),
    ("eps", True, TypeError, f"eps is True; {NUMBER}"),
    ("eps", np.True_, TypeError, rf"eps is (np\.)?True_?; {NUMBER}"),
    ("eps", "0.1", TypeError, f"eps is '0.1'; {NUMBER}"),
    ("eps", b"1", TypeError, f"eps is b'1'; {NUMBER}"),
    ("eps", None, TypeError, f"eps is None; {NUMBER} >= 0"),
    ("eps", np.ones(2), TypeError, f"eps is array.*; {NUMBER}"),
    ("eps", torch.ones(1), TypeError, f"eps is tensor.*; {NUMBER}"),
    ("radius", 0, ValueError, f"radius is 0; {NUMBER} > 0, or None"),
    ("radius", -1.0, ValueError, f"radius is -1.0; {NUMBER} > 0, or None"),
    ("step_size", 0.0, ValueError, f"step_size is 0.0; {NUMBER} > 0, or None"),
    ("step_size", "1", TypeError, "step_size is '1'; allowed"),
    ("steps", -1, ValueError, "steps is -1; allowed: an integer >= 0"),
    ("steps", 2.0, TypeError, "steps is 2.0; allowed: an integer >= 0"),
    ("steps", True, TypeError, "steps is True; allowed: an integer >= 0"),
    ("steps", "3", TypeError, "steps is '3'; allowed: an integer"),
    ("steps", torch.ones(1), TypeError, "steps is tensor.*; allowed: an integer"),
    ("norm", 3, ValueError, 'norm is 3; allowed: np.inf, "inf", 2 and 1'),
    ("norm", True, ValueError, "norm is True; allowed"),
    ("norm", None, ValueError, "norm is None; allowed"),
    (
        "estimator",
        "finite-diff",
        ValueError,
        "'finite-diff'; allowed.*mean 'finite-difference'",
    ),
    ("estimator", None, ValueError, "estimator is None; allowed: 'finite-difference', 'exact'"),
    ("estimator", np.array(["exact", "b"]), ValueError, "estimator is array.*; allowed: 'finite"),
    ("loss", nn.Identity(), ValueError, "loss is Identity, which has no `reduction`; allowed"),
    ("loss", 3, TypeError, "loss is 3; allowed: None, a torch.nn loss"),
    ("bounds", (1.0, 0.0), ValueError, r"bounds is \(1.0, 0.0\); allowed: low < high"),
    ("bounds", (0.0, 0.0), ValueError, "low < high everywhere"),
    ("bounds", (NAN, 1.0), ValueError, "low < high everywhere, without NaN"),
    ("bounds", (0.0, 1.0, 2.0), ValueError, r"bounds is \(0.0, 1.0, 2.0\); allowed: a pair"),
    ("bounds", 1.0, ValueError, "bounds is 1.0; allowed: a pair"),
    ("bounds", "01", ValueError, "bounds is '01'; allowed: a pair"),
    (
        "bounds",
        (np.zeros(5), 1.0),
        ValueError,
        r"bounds has shape \(5,\); allowed.*sample, \(6",
    ),
    ("bounds", (np.zeros((1, 6)), 1.0), ValueError, r"bounds has shape \(1, 6\); allowed"),
    ("epsilon", 1, TypeError, "unexpected keyword argument 'epsilon'; did you mean 'eps'"),
    ("stepsize", 1, TypeError, "unexpected keyword argument 'stepsize'; did you mean 'step_size'"),
    ("zzz", 1, TypeError, "unexpected keyword argument 'zzz'; it takes .*eps, .*bounds"),
]


@pytest.mark.parametrize(("name", "value", "error", "says"), SETTINGS)
def test_settings(call: Call, name: str, value: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "error", "says"),
    [
        ("lam", -0.1, ValueError, f"lam is -0.1; {NUMBER} >= 0, or None"),
        ("lam", NAN, ValueError, "lam is nan; allowed"),
        ("lam", False, TypeError, "lam is False; allowed"),
        ("batch_norm", "evla", ValueError, "batch_norm is 'evla'; allowed.*did you mean 'eval'"),
        ("generator", 0, TypeError, "generator is a int; allowed: a torch.Generator, or None"),
        ("lamda", 0.1, TypeError, r"lfr_loss\(\) got an unexpected .* did you mean 'lam'"),
    ],
)
def test_settings_of_the_loss(name: str, value: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        lfr_loss(nn.Linear(6, 3), X, Y, eps=0.1, **{name: value})
    with pytest.raises(error, match=says.replace("lfr_loss", "LFRLoss")):
        LFRLoss(eps=0.1, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("restarts", 0, ValueError),
        ("restarts", 1.5, TypeError),
        ("batch_size", 0, ValueError),
        ("seed", -1, ValueError),
        ("seed", "a", TypeError),
        ("restart", 3, TypeError),
        ("lam", 0.1, TypeError),
    ],
)
def test_settings_of_the_measure(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"{name} is {value!r}; allowed|argument '{name}'"):
        local_flatness(nn.Linear(6, 3), X, Y, eps=0.1, **{name: value})


def spoiled(value: float) -> Tensor:
    x = X.clone()
    x[2, 3] = value
    return x


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (spoiled(NAN), "x holds NaN or infinite values"),
        (spoiled(-math.inf), "x holds NaN or infinite values"),
        (spoiled(1.01), r"x has values from .* to 1.01; allowed: inside the bounds, \[0, 1\]"),
        (spoiled(-0.01), r"x has values from -0.01 to .*; allowed: inside the bounds, \[0, 1\]"),
        (X[0], r"x has shape \(6,\); allowed: \(N, ...\)"),
        (torch.tensor(0.5), r"x has shape \(\); allowed: \(N, ...\)"),
        (X[:0], r"x has shape \(0, 6\); allowed: \(N, ...\) with at least one sample"),
        (X[:, :0], r"x has shape \(4, 0\); allowed"),
        ((X * 255).long(), "x has dtype torch.int64; allowed: floating point"),
        (X.bool(), "x has dtype torch.bool; allowed: floating point"),
        (X.to(torch.complex64), "x has dtype torch.complex64; allowed"),
    ],
)
def test_inputs(call: Call, x: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(x, Y[: len(x)] if x.dim() else Y)


def test_inputs_outside_bounds_of_their_feature(call: Call) -> None:
    high = torch.tensor([1.0, 1, 1, 0.2, 1, 1])
    with pytest.raises(ValueError, match="or less, feature by feature"):
        call(spoiled(0.3), bounds=(0.0, high))
    call(torch.minimum(X, high), bounds=(np.zeros(6), high))
    call(spoiled(1.0 + 1e-7))  # rounding is no error


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (Y[:3], r"y has shape \(3,\) for 4 samples; allowed: one label per sample"),
        (torch.tensor(1), r"y has shape \(\) for 4 samples"),
        (
            torch.tensor([0, 1, 3, 1]),
            "y has labels from 0 to 3; allowed: 0 to 2, as the model",
        ),
        (torch.tensor([0, 1, -1, 1]), "y has labels from -1 to 1; allowed: 0 to 2"),
    ],
)
def test_labels(call: Call, y: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(y=y)


def test_things_of_the_wrong_kind() -> None:
    model: Any = nn.Linear(6, 3)
    for arguments, says in (
        ((lambda x: x, X, Y), "model is a function; allowed: a torch.nn.Module"),
        ((model, [["a"]], Y), "x is a list of dtype <U1; allowed: a numeric array or tensor"),
        ((model, X, {0: 1}), "y is a dict; allowed: a numeric array or tensor"),
    ):
        with pytest.raises(TypeError, match=says):
            lfr_loss(*arguments, eps=0.1)
    with pytest.raises(TypeError, match="x is a str; allowed: a numeric array or tensor"):
        local_flatness(model, "x", Y, eps=0.1)  # type: ignore[call-overload]


def test_models_without_gradients_in_x(call: Call) -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.eye(6)[:3].matmul(x.detach().T).T

    class Constant(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.ones_like(x))

    for model in (Cut(), Constant(6, 3)):
        with pytest.raises(ValueError, match="model gives a loss without gradients in x; allowed"):
            call(model=model)


def test_numbers_of_many_kinds_are_taken() -> None:
    for value in (1, np.float32(0.5), np.int64(2), np.float64(0)):
        check_number("a", value)
    check_number("a", None, optional=True)
    check_integer("a", np.int16(3), low=3)
    with pytest.raises(TypeError, match="a is Decimal"):
        check_number("a", Decimal(1))
    expected = lfr_loss(nn.Linear(6, 3), X, Y, eps=0.125, steps=2)
    for eps in (np.float32(0.125), np.float16(0.125)):
        torch.manual_seed(0)
        assert lfr_loss(nn.Linear(6, 3), X, Y, eps=eps, steps=np.int64(2)).total.dtype == X.dtype
    assert expected.total.dim() == expected.clean.dim() == expected.flatness.dim() == 0


def test_arrays_in_arrays_out() -> None:
    model = nn.Linear(6, 3)
    found = local_flatness(
        model, X.cpu().numpy()[::-1], Y.cpu().numpy()[::-1], eps=0.1, bounds=None, steps=0
    )
    assert isinstance(found, np.ndarray)
    assert found.shape == (4,)
    assert torch.equal(as_tensor("x", X.cpu().numpy()[:, ::-1]), X.flip(1).cpu())
    assert torch.equal(class_labels("y", Y, 4, classes=3), Y.cpu())
    with pytest.raises(ValueError, match="y has labels from 0 to 2; allowed: 0 to 1"):
        class_labels("y", Y, 4, classes=2)


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_defaults_scale_with_eps(norm: float) -> None:
    one, many = LFRSettings(eps=0.1, norm=norm), LFRSettings(eps=0.1 * 255, norm=norm)
    for name in ("step_size", "lam", "radius"):
        assert getattr(many, name) == pytest.approx(255 * getattr(one, name))
    assert LFRSettings(eps=1, radius=3, lam=4, step_size=5).radius == 3.0
    with pytest.raises(ValueError, match="eps is 0, and lam, by default"):
        LFRSettings(eps=0, norm=norm, radius=0.1)
    with pytest.raises(ValueError, match="eps is 0, and radius, by default"):
        LFRSettings(eps=0, norm=norm, lam=1.0)


def keywords_in(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def test_loss_and_settings_have_the_same_keywords_and_defaults() -> None:
    assert LFRLoss(eps=0.1).settings == LFRSettings(eps=0.1)
    settings, taken = keywords_in(LFRSettings), keywords_in(lfr_loss)
    assert taken == keywords_in(LFRLoss)
    assert {name: taken[name].default for name in settings} == {
        name: parameter.default for name, parameter in settings.items()
    }
    # What type checkers see is what runs.
    assert set(taken) == {"eps", *LossKeywords.__annotations__}
    assert set(LFRKeywords.__annotations__) < set(settings)
    assert set(keywords_in(local_flatness)) == {"eps", *MeasureKeywords.__annotations__}


def test_numpy_inputs_take_the_type_of_the_model() -> None:
    """NumPy's float64 meets a float32 network, as it does everywhere in practice."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, y = np.random.default_rng(0).random((5, 4)), np.arange(5) % 3
    found = local_flatness(model, x, y, eps=0.1)
    assert found.dtype == np.float32
    assert found.shape == (5,)
