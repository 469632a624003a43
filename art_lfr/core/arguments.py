"""Checks of what a user passes: each error names the parameter, its value and what is allowed."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy.typing as npt

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


def check_share(name: str, value: float | None) -> None:
    """Raise unless the value is a share in (0, 1], such as an accuracy, or None."""
    check_number(name, value, low_allowed=False, optional=True)
    if value is not None and value > 1:
        hint = f" ({value / 100:g}, not {value:g})" if value <= 100 else ""
        raise UsageError(f"{name} is {value!r}; allowed: a share in (0, 1]{hint}, or None")


def check_seed(name: str, value: object, *, optional: bool = False) -> None:
    """Raise unless `value` is an integer that every generator takes; None passes if `optional`."""
    check_integer(name, value, low=0, optional=optional)
    if isinstance(value, Integral) and int(value) >= 2**63:
        raise UsageError(f"{name} is {value!r}; allowed: an integer from 0 to 2**63 - 1")


def check_choice(name: str, value: object, choices: Iterable[str], *, others: str = "") -> None:
    """Raise unless `value` is one of `choices`; the error names the nearest, and `others`."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join([*(repr(choice) for choice in choices), *filter(None, [others])])
        raise UsageError(f"{name} is {value!r}; allowed: {listed}{nearest(value, choices)}")


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
# How alike two words are, from 0 to 1, for one to be told for the other: "crop" and "crop-flip" are
# above it, "export" and "plot" below.
CUTOFF = 0.61


def keywords_of(
    *sources: Callable[..., object],
    renamed: Mapping[str, str] | None = None,
    only: type | None = None,
    refuse: Callable[[Sequence[object], Mapping[str, object]], None] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function, so that a keyword it does not have is an error that names the nearest.

    Where it has `**settings`, these are the keyword-only parameters of `sources`, under other names
    where `renamed` says so (of them those that the TypedDict `only` has), and stand in its
    signature (`help`, `inspect`) with their defaults. `refuse` sees all arguments first, and may
    raise an error that says more.
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
            if refuse is not None:
                refuse(args, kwargs)
            reject_unknown(f"{owner}()", kwargs, known)
            return function(*args, **kwargs)

        vars(checked)["__signature__"] = signature.replace(parameters=list(parameters.values()))
        return checked

    return decorate


def reject_unknown(owner: str, keywords: Iterable[str], known: Collection[str]) -> None:
    """Raise WrongTypeError for a keyword that `owner` does not have, naming the nearest."""
    for name in keywords:
        if name not in known:
            hint = nearest(name, known) or f"; it takes {', '.join(known)}"
            raise WrongTypeError(f"{owner} got an unexpected keyword argument {name!r}{hint}")


def part_for(keywords: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Those keywords that a TypedDict has."""
    return {name: value for name, value in keywords.items() if name in kind.__annotations__}


def nearest(value: object, choices: Collection[str]) -> str:
    """What an error says of the choice most like the value, or "" where none is like it."""
    text, folded = str(value).casefold(), {name.casefold(): name for name in choices}
    close = [name for name in MIXED_UP.get(str(value), ()) if name in choices]
    # The commonest slip of the fingers, of which difflib thinks little.
    close += [name for plain, name in folded.items() if _are_swapped(text, plain)]
    close += [folded[name] for name in difflib.get_close_matches(text, folded, 1, CUTOFF)]
    return f"; did you mean {close[0]!r}?" if close else ""


def _are_swapped(first: str, second: str) -> bool:
    """Whether two words differ in the order of two neighbouring letters."""
    swaps = (f"{first[:i]}{first[i + 1]}{first[i]}{first[i + 2 :]}" for i in range(len(first) - 1))
    return first != second and second in swaps


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise WrongTypeError(f"{name} is {value!r}; allowed: True or False")


def check_type(name: str, value: object, kind: type, allowed: str) -> None:
    """Raise TypeError unless `value` is a `kind`, in words `allowed`."""
    if not isinstance(value, kind):
        raise WrongTypeError(f"{name} is a {type(value).__name__}; allowed: {allowed}")
