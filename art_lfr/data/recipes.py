"""The table of data sets by name: for each, the settings that a command takes where none is given.

`art-lfr train`, the other commands and the demonstration take what is not given from the row of
their data. Torch is not imported: a wrong name is refused at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

from art_lfr.core.arguments import check_integer, check_number
from art_lfr.core.names import AUGMENTATIONS, MODELS, OPTIMIZERS, find_name, parse_norm
from art_lfr.errors import UsageError


class RecipeKeywords(TypedDict, total=False):
    """Those of a recipe that are options of the commands that train: types and help."""

    epochs: Annotated[int, "Epochs in all; with --resume the same again. Default: of --data."]
    batch_size: Annotated[int, "Samples in a batch. Default: of --data."]
    lr: Annotated[float, "Peak of the one-cycle learning rate. Default: of --data."]
    optimizer: Annotated[str, f"{', '.join(OPTIMIZERS)}. Default: sgd, with momentum 0.9."]
    weight_decay: Annotated[float, "Weight decay of the optimizer. Default: of --data."]
    augmentation: Annotated[
        str, f"{', '.join(AUGMENTATIONS)}: mirror, shift by up to 4 pixels. Default: of --data."
    ]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained on one data set.

    Attributes:
        data: Name or path of the data.
        model: Name of the network.
        eps: Radius of the ball, in units of the input.
        norm: Norm of the ball.
        epochs: Epochs in all.
        batch_size: Samples in a batch.
        lr: Peak of the one-cycle learning rate.
        optimizer: One of `OPTIMIZERS`; sgd has momentum 0.9.
        weight_decay: That of the optimizer.
        max_iter: Ascent steps.
        lam: Weight of the penalty as a multiple of eps; None: the default of the norm.
        radius: Finite-difference radius as a multiple of eps; None: the default of the norm.
        warmup_epochs: eps and lam rise over so many, and over at most a third of `epochs`.
        augmentation: One of `AUGMENTATIONS`.
        source: The experiment behind the row.
    """

    data: str
    model: str
    eps: float
    norm: str = "inf"
    epochs: int = 20
    batch_size: int = 128
    lr: float = 0.1
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    max_iter: int = 2
    lam: float | None = None
    radius: float | None = None
    warmup_epochs: float = 2.0
    augmentation: str = "none"
    source: str = "none"

    def objective(self, penalty: str = "lfr") -> dict[str, float]:
        """lam, radius and warmup_epochs as the trainer takes them.

        lam and radius are left out where the row has none, and for other penalties than LFR's.
        """
        settings = {"warmup_epochs": min(self.warmup_epochs, self.epochs / 3)}
        if penalty.startswith("lfr"):
            multiples = {"lam": self.lam, "radius": self.radius}
            settings |= {name: m * self.eps for name, m in multiples.items() if m is not None}
        return settings


_MNIST = Recipe(
    data="mnist",
    model="small-cnn",
    eps=0.3,
    epochs=5,
    lr=0.2,
    lam=0.5,
    radius=1 / 6,
    warmup_epochs=1.5,
    source="benchmarks/robustness/mnist.yaml, learning rate and warm-up not tuned",
)
_CIFAR10 = Recipe(
    data="cifar10",
    model="narrow-resnet",
    eps=8 / 255,
    epochs=40,
    lr=0.3,
    lam=1.0,
    augmentation="flip",
    source="benchmarks/robustness/cifar10.yaml, 10,000 training images",
)
# docs/defaults.md shows this table; a test compares.
RECIPES = {
    recipe.data: recipe
    for recipe in (
        Recipe(
            data="digits",
            model="digits-cnn",
            eps=0.1,
            epochs=30,
            batch_size=64,
            lam=1.0,
            warmup_epochs=4.0,
            source="benchmarks/defaults/defaults.yaml",
        ),
        _MNIST,
        replace(
            _MNIST, data="fashion-mnist", eps=0.1, source="not studied: mnist's, at a smaller eps"
        ),
        replace(
            _CIFAR10, data="svhn", augmentation="none", source="not studied: cifar10's, no flip"
        ),
        _CIFAR10,
        replace(_CIFAR10, data="cifar100", source="not studied: cifar10's"),
    )
}
# The data sets that have a name.
NAMES = tuple(RECIPES)


def find_data(parameter: str, name: object) -> str:
    """The data set that is meant, or a path as it is; a .npz file need not be there.

    Names are read as by `find_name`, unless there is a folder of that name. Raises ValueError for
    anything else.
    """
    text = str(name) if isinstance(name, str | Path) else ""
    is_own = text.endswith(".npz") or (bool(text) and Path(text).expanduser().is_dir())
    if is_own and name not in NAMES:
        return text if text not in NAMES else os.path.join(os.curdir, text)
    own = "the path of a .npz file, or a folder with train/<class>/ and images"
    return find_name(parameter, text or name, NAMES, others=own)


def recipe_for(data: str, **given: Any) -> Recipe:
    """The row of `data`, with what is given (not None) in place of its own settings; all checked.

    Data without a row has the defaults of `Recipe`, and its model and eps have to be given. So has
    eps where the norm is another than the row's, and lr where the optimizer is: the row's were
    chosen for its own.

    Raises ValueError or TypeError, naming the parameter, for a wrong or a missing one.
    """
    given = {name: value for name, value in given.items() if value is not None}
    given["data"] = data = find_data("data", data)
    listed = {"augmentation": AUGMENTATIONS, "optimizer": OPTIMIZERS}
    if ":" not in str(given.get("model", ":")):
        own = "or module.path:factory"
        given["model"] = find_name("model", given["model"], MODELS, others=own)
    for name in listed.keys() & given.keys():
        given[name] = find_name(name, given[name], listed[name])
    for name, lowest in (("epochs", 1), ("batch_size", 1), ("max_iter", 0)):
        check_integer(name, given.get(name, 1), low=lowest)
    for name in ("eps", "weight_decay"):
        check_number(name, given.get(name, 0.0))
    check_number("lr", given.get("lr", 1.0), low_allowed=False)
    p = parse_norm(given.get("norm", "inf"))
    if "norm" in given:
        given["norm"] = f"{p:g}"
    row = RECIPES.get(data)
    if row is None:
        if missing := [f"{name} is missing" for name in ("model", "eps") if name not in given]:
            this = "both" if len(missing) > 1 else "one"
            raise UsageError(f"{' and '.join(missing)}; {data!r} is your own data, so give {this}")
        row = Recipe(data=data, model=given["model"], eps=given["eps"])
    if p != parse_norm(row.norm):
        if "eps" not in given:
            raise UsageError(f"eps is missing; {data} has one for norm {row.norm} only: give one")
        row = replace(row, lam=None, radius=None)
    if given.get("optimizer", row.optimizer) != row.optimizer and "lr" not in given:
        raise UsageError(
            f"lr is missing; that of {data}, {row.lr:g}, is for {row.optimizer}: give one, such as "
            "0.001"
        )
    return replace(row, **given)
