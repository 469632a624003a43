"""Options that are not given: as the weights say, where they know what they are, else of the data.

Nothing here imports torch, but for a network that a file names by `module:factory`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from art_lfr.cli.options import check_file
from art_lfr.core.arguments import check_choice, check_integer, check_seed
from art_lfr.core.imports import check_package
from art_lfr.core.names import MODELS, parse_norm
from art_lfr.data.recipes import NAMES, Recipe, recipe_for
from art_lfr.errors import UsageError
from art_lfr.storage.info import NetworkInfo, network_info


@dataclass(frozen=True)
class Chosen:
    """The settings of a command; `info` is what the weights say.

    `lines` are what a user should know of them before the work, to be told once all is checked.
    """

    recipe: Recipe
    weights: Path | None = None
    info: NetworkInfo | None = None
    lines: tuple[str, ...] = ()


def settings_of(
    data: str | None, weights: Path | None = None, *, seed: int = 0, ball: bool = True, **given: Any
) -> Chosen:
    """Each setting as given (not None), else as the weights say, else that of the data's row.

    The files that are named and the module of the network are there. A line says where an option
    that is given differs from what the weights say, and where eps is one that the weights know
    nothing of; without `ball` there is no eps.
    Raises ValueError for weights that know what they are and lack what is not given.
    """
    check_file("--weights", weights)
    # First: what else its own data needs is asked for by `recipe_for`.
    check_file("--data", Path(data) if data is not None and data.endswith(".npz") else None)
    given = {name: value for name, value in given.items() if value is not None}
    info = None if weights is None else info_of(weights)
    lines: tuple[str, ...] = ()
    if weights is not None and info is not None:
        lines = _differences(weights, info, {**given, "data": data}, ball)
        data, given = data or _data_of(weights, info), _filled(weights, info, given)
    recipe = recipe_for(data or "digits", **given)
    if ":" in recipe.model:
        try:
            check_package(recipe.model)
        except UsageError as error:
            raise UsageError(
                f"--model is {error}; allowed: {', '.join(MODELS)}, or module.path:factory"
            ) from None
    check_seed("--seed", seed)
    if ball and weights is not None and "eps" not in given:
        said = "does not say at which eps it was trained"
        if info is not None and info.eps is not None:
            said = (
                f"was trained at eps {info.eps:g} in norm {info.norm}, which says nothing for norm "
                f"{recipe.norm}"
            )
        lines += (f"--eps is {recipe.eps:g}, the default for {recipe.data}; {weights.name} {said}",)
    return Chosen(recipe, weights, info, lines)


def judged(
    data: str | None,
    weights: Path | None,
    *,
    split: str,
    images: int | None = None,
    ball: bool = True,
    **given: Any,
) -> Chosen:
    """`settings_of` for a trained network and a part of the data."""
    chosen = settings_of(data, weights, ball=ball, **given)
    check_choice("--split", split, ("test", "validation", "train"))
    check_integer("--images", images, low=1, optional=images is None)
    if weights is None and ":" not in chosen.recipe.model:
        raise UsageError(
            f"--weights is missing; a built-in model ({chosen.recipe.model}) is untrained without"
        )
    if weights is None:
        line = f"--weights is missing: judged is what {chosen.recipe.model} makes"
        return replace(chosen, lines=(*chosen.lines, line))
    return chosen


def _differences(
    weights: Path, info: NetworkInfo, given: Mapping[str, Any], ball: bool
) -> tuple[str, ...]:
    """A line for each option that is given and differs from what the weights say."""
    lines = []
    known = {"model": "is a", "data": "was trained on"}
    if ball:
        known |= {"eps": "was trained at eps", "norm": "was trained in the norm"}
    for name, words in known.items():
        was, now = getattr(info, name), given.get(name)
        if was is None or now is None or _same(name, was, now):
            continue
        shown, chosen = (f"{v:.6g}" if isinstance(v, float) else v for v in (was, now))
        lines.append(f"--{name} is {chosen}; {weights.name} {words} {shown}")
    return tuple(lines)


def _data_of(weights: Path, info: NetworkInfo) -> str:
    """The name of the data set that the weights were trained on."""
    if info.data in NAMES:
        return str(info.data)
    on = "does not say on what it was trained"
    if info.data is not None:
        on = f"was trained on {info.data}, which is not the name of a data set"
    raise UsageError(
        f"--data is missing: {weights} {on}; allowed: {', '.join(NAMES)}, or a file or folder"
    )


def _filled(weights: Path, info: NetworkInfo, given: Mapping[str, Any]) -> dict[str, Any]:
    """Model, eps and norm of the weights in place of those that are not given."""
    filled = dict(given)
    if "model" not in given and info.model in MODELS:
        filled["model"] = info.model
    elif "model" not in given:
        from art_lfr.models.files import model_of  # imports torch

        filled["model"] = model_of(weights, info)
    names = ["norm"]
    # The eps of one norm is none of another.
    if "norm" not in given or info.norm is None or _same("norm", info.norm, given["norm"]):
        names.append("eps")
    for name in names:
        if name not in given and getattr(info, name) is not None:
            filled[name] = getattr(info, name)
    return filled


def _same(name: str, was: Any, now: Any) -> bool:
    """Whether an option that is given is what the weights say."""
    if name == "norm":
        return parse_norm(was) == parse_norm(now)
    if name == "data":
        return was in (now, Path(now).name)
    return math.isclose(was, now, rel_tol=1e-6) if name == "eps" else bool(was == now)


def info_of(weights: Path, option: str = "--weights") -> NetworkInfo | None:
    """What weights say of their network; errors name `option`."""
    try:
        return network_info(weights)
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} is {str(weights)!r}: {error}") from error
