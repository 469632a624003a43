"""Options that are not given: as the weights say, where they know what they are, else as usual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from art_lfr.core.arguments import check_number
from art_lfr.errors import UsageError
from art_lfr.storage.info import NetworkInfo, network_info


@dataclass(frozen=True)
class Chosen:
    """The options that network, data and ball come from; `info` is what the weights say.

    `lines` are what a user should know of them before the work, to be told once all is checked.
    """

    model: str
    data: str
    eps: float
    norm: str
    weights: Path | None
    info: NetworkInfo | None
    lines: tuple[str, ...]


def usual(data: str) -> dict[str, Any]:
    """The options for a data set where neither the user nor the weights say them."""
    return {"model": "digits-cnn", "eps": 0.1, "norm": "inf"}


def resolve(
    weights: Path | None,
    *,
    model: str | None,
    data: str | None,
    eps: float | None = None,
    norm: str | None = None,
    ball: bool = True,
) -> Chosen:
    """Each option as given, else as the weights say, else as is usual for the data.

    A line says where an option that is given differs from what the weights say, and where eps is a
    default that the weights know nothing of; without `ball` there is no eps.
    Raises ValueError for weights that know what they are and lack what is not given.
    """
    # Here: they take torch's seconds of import.
    from art_lfr.core.geometry import parse_norm
    from art_lfr.data import NAMES
    from art_lfr.models.files import model_of

    info = None if weights is None else info_of(weights)
    if norm is not None:
        parse_norm(norm)
    check_number("--eps", eps, optional=True)
    lines = []
    given: dict[str, Any] = {"model": model, "data": data, "eps": eps, "norm": norm}
    if weights is not None and info is not None:
        known = {"model": "is a", "data": "was trained on", "eps": "was trained at eps"}
        for name, words in {**known, "norm": "was trained in the norm"}.items():
            was, now = getattr(info, name), given[name]
            if was is None or now is None or _same(name, was, now):
                continue
            shown = f"{was:g}" if isinstance(was, float) else was
            lines.append(f"--{name} is {now}; {weights.name} {words} {shown}")
        if data is None and info.data not in NAMES:
            on = "does not say on what it was trained"
            if info.data is not None:
                on = f"was trained on {info.data}, which is not the name of a data set"
            raise UsageError(
                f"--data is missing: {weights} {on}; allowed: {', '.join(NAMES)}, or a "
                "file or folder"
            )
        if model is None:
            given["model"] = model_of(weights, info)
        for name in ("data", "eps", "norm"):
            given[name] = getattr(info, name) if given[name] is None else given[name]
    given["data"] = given["data"] or "digits"
    found = {name: value for name, value in given.items() if value is not None}
    found = {**usual(found["data"]), **found}
    if ball and weights is not None and given["eps"] is None:
        lines.append(
            f"--eps is {found['eps']:g}, the default for {found['data']}; {weights.name} does not "
            "say at which eps it was trained"
        )
    return Chosen(**found, weights=weights, info=info, lines=tuple(lines))


def _same(name: str, was: Any, now: Any) -> bool:
    """Whether an option that is given is what the weights say."""
    if name == "norm":
        return float(was) == float(now)
    if name == "data":
        return was in (now, Path(now).name)
    return math.isclose(was, now, rel_tol=1e-6) if name == "eps" else bool(was == now)


def info_of(weights: Path, option: str = "--weights") -> NetworkInfo | None:
    """What weights say of their network; errors name `option`."""
    try:
        return network_info(weights)
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} is {str(weights)!r}: {error}") from error
