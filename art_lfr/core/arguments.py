"""Checks of what a user passes: each error names the parameter, its value and what is allowed."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from art_lfr.core.geometry import Box
from art_lfr.errors import UsageError, WrongTypeError

P = ParamSpec("P")
R = TypeVar("R")
# Of any shape and type.
Array: TypeAlias = npt.NDArray[Any]


def check_number(
    name: str, value: object, *, low: float = 0.0, low_allowed: bool = True, optional: bool = False
) -> None:
    """Raise unless `value` is a finite number above (or at) `low`; None passes if `optional`."""
    if value is None and optional:
        return
    allowed = f"a finite number {'>=' if low_allowed else '>'} {low:g}"
    allowed += ", or None" if optional else ""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise WrongTypeError(f"{name} is {value!r}; allowed: {allowed}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < low or (number == low and not low_allowed):
        raise UsageError(f"{name} is {value!r}; allowed: {allowed}")


def check_integer(name: str, value: object, *, low: int, optional: bool = False) -> None:
    """Raise unless `value` is an integer of at least `low`; None passes if `optional`."""
    if value is None and optional:
        return
    allowed = f"an integer >= {low}" + (", or None" if optional else "")
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise WrongTypeError(f"{name} is {value!r}; allowed: {allowed}")
    if value < low:
        raise UsageError(f"{name} is {value!r}; allowed: {allowed}")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise unless `value` is one of `choices`; the error names the nearest."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise UsageError(f"{name} is {value!r}; allowed: {listed}{_nearest(value, choices)}")


# Names that users of ART, torchattacks and this package's loss take one for the other. Further
# names are told only where they are close: a wrong hint is worse than the list.
MIXED_UP = {
    "steps": ("max_iter",),
    "max_iter": ("steps",),
    "step_size": ("eps_step",),
    "eps_step": ("step_size",),
    "alpha": ("eps_step", "step_size"),
    "lambda_": ("lam",),
    "epsilon": ("eps",),
    "clip_norm": ("max_grad_norm",),
    "grad_clip": ("max_grad_norm",),
    "epochs": ("nb_epochs",),
    "nb_epochs": ("epochs",),
}


def keywords_of(
    *sources: Callable[..., object],
    renamed: Mapping[str, str] | None = None,
    only: type | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function, so that a keyword it does not have is an error that names the nearest.

    Where it has `**settings`, these are the keyword-only parameters of `sources`, under other names
    where `renamed` says so (of them those that the TypedDict `only` has), and stand in its
    signature (`help`, `inspect`) with their defaults.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        parameters = {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        for source in sources:
            for parameter in inspect.signature(source).parameters.values():
                name = (renamed or {}).get(parameter.name, parameter.name)
                wanted = only is None or name in only.__annotations__
                if parameter.kind is parameter.KEYWORD_ONLY and wanted:
                    parameters.setdefault(name, parameter.replace(name=name))
        owner = function.__qualname__.replace(".__init__", "").rpartition(".")[2]
        known = [name for name in parameters if name != "self"]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            reject_unknown(f"{owner}()", kwargs, known)
            return function(*args, **kwargs)

        vars(checked)["__signature__"] = signature.replace(parameters=list(parameters.values()))
        return checked

    return decorate


def reject_unknown(owner: str, keywords: Iterable[str], known: Collection[str]) -> None:
    """Raise WrongTypeError for a keyword that `owner` does not have, naming the nearest."""
    for name in keywords:
        if name not in known:
            nearest = _nearest(name, known, cutoff=0.65) or f"; it takes {', '.join(known)}"
            raise WrongTypeError(f"{owner} got an unexpected keyword argument {name!r}{nearest}")


def part_for(keywords: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Those keywords that a TypedDict has."""
    return {name: value for name, value in keywords.items() if name in kind.__annotations__}


def _nearest(value: object, choices: Collection[str], cutoff: float = 0.5) -> str:
    close = [name for name in MIXED_UP.get(str(value), ()) if name in choices]
    close += difflib.get_close_matches(str(value), choices, n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise WrongTypeError(f"{name} is {value!r}; allowed: True or False")


def check_type(name: str, value: object, kind: type, allowed: str) -> None:
    """Raise TypeError unless `value` is a `kind`, in words `allowed`."""
    if not isinstance(value, kind):
        raise WrongTypeError(f"{name} is a {type(value).__name__}; allowed: {allowed}")


def check_batch(model: object, x: object, y: object) -> None:
    """Raise TypeError unless these are a module and two tensors."""
    check_type("model", model, nn.Module, "a torch.nn.Module")
    check_type("x", x, Tensor, "a tensor")
    check_type("y", y, Tensor, "a tensor")


def check_inputs(name: str, x: Tensor, box: Box | None = None) -> None:
    """Raise ValueError unless x is a non-empty, floating, finite batch inside the box."""
    if x.dim() < 2 or len(x) == 0 or x[0].numel() == 0:
        raise UsageError(
            f"{name} has shape {tuple(x.shape)}; allowed: (N, ...) with at least one sample"
        )
    if not x.is_floating_point():
        raise UsageError(
            f"{name} has dtype {x.dtype}; allowed: floating point (convert integer images and "
            "scale them as the model expects)"
        )
    if not bool(x.isfinite().all()):
        raise UsageError(f"{name} holds NaN or infinite values; allowed: finite values")
    if box is not None and not box.contains(x):
        low, high = float(box.low.min()), float(box.high.max())
        raise UsageError(
            f"{name} has values from {float(x.min()):g} to {float(x.max()):g}; allowed: inside "
            f"the bounds, [{low:g}, {high:g}]"
            + (", or less, feature by feature" if box.low.dim() or box.high.dim() else "")
        )


def check_labels(name: str, y: Tensor, count: int, classes: int | None = None) -> None:
    """Raise ValueError unless y has one label per sample; index labels lie in 0..classes-1."""
    if y.dim() == 0 or len(y) != count:
        raise UsageError(
            f"{name} has shape {tuple(y.shape)} for {count} samples; allowed: one label per sample"
        )
    if classes is None:
        return
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        raise UsageError(
            f"{name} has labels from {low} to {high}; allowed: 0 to {classes - 1}, as the model "
            f"has {classes} classes"
        )


def as_tensor(name: str, value: object) -> Tensor:
    """Turn an array into a tensor, or raise TypeError naming the parameter."""
    try:
        if isinstance(value, np.ndarray) and value.ndim:
            # torch takes no negative strides, such as those of x[::-1].
            value = np.ascontiguousarray(value)
        if isinstance(value, np.ndarray) and not value.flags.writeable:
            value = value.copy()  # torch warns about tensors over read-only memory
        tensor = torch.as_tensor(value)
        # One made in inference mode takes part in no gradient.
        return tensor.clone() if tensor.is_inference() else tensor
    except (TypeError, ValueError, RuntimeError) as error:
        raise WrongTypeError(
            f"{name} is a {type(value).__name__}; allowed: a numeric array or tensor"
        ) from error
