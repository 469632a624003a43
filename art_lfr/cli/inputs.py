"""What the commands take and give: a model, its weights, data, tables, printed results.

Every mistake of a user's raises one of `art_lfr.errors` or an OSError, and names the option.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from art_lfr.cli.known import Chosen, info_of
from art_lfr.core import progress
from art_lfr.core.arguments import Array
from art_lfr.core.criterion import logits_of
from art_lfr.core.modes import default_device, device_of, mode
from art_lfr.core.samples import class_labels
from art_lfr.data import ImageData, load
from art_lfr.data.image_data import PARTS
from art_lfr.data.recipes import find_data
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.models import NetworkInfo, make_network
from art_lfr.models.files import filled, model_of
from art_lfr.storage import files

if TYPE_CHECKING:
    import pandas


def load_model(
    name: str, weights: Path | None, seed: int = 0, classes: int = 10, option: str = "--weights"
) -> nn.Module:
    """A network as `make_network` makes it, with weights where given.

    A preprocessing that the weights name is a part of it, and their number of classes is that of a
    built-in network. Errors name `option`.
    """
    info = None if weights is None else info_of(weights, option)
    network = make_network(name, seed, (info.classes if info else None) or classes)
    if weights is None:
        return network
    try:
        return filled(network, weights, info or NetworkInfo())
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} is {str(weights)!r}: {error}") from error


def load_data(name: str, test: int | None = None, training: bool = True) -> ImageData:
    """A data set by its name, a user's .npz file, or a folder of images; the rest as in `load`."""
    return load(find_data("--data", name), training=training, test=test)


def count_classes(model: nn.Module, x: Array, y: Array, option: str = "--model") -> int:
    """The model's classes; ValueError where it does not run on the images or lacks a label.

    Errors name `option`.
    """
    first = torch.from_numpy(x[:1])
    try:
        with torch.no_grad(), mode(model, training=False):
            logits = logits_of(model(first.to(device_of(model, first))))
    except (UsageError, WrongTypeError):
        raise
    except Exception as error:  # of a user's own network
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        raise UsageError(
            f"{option} does not run on images of shape {x.shape[1:]}: {kind}{error}; allowed: a "
            "network made for --data"
        ) from error
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise UsageError(
            f"{option} gives outputs of shape {tuple(logits.shape)} for one image; allowed: logits "
            "of shape (1, classes)"
        )
    class_labels("--data", y, len(x), logits.shape[1])
    return logits.shape[1]


def outputs_for(data: ImageData) -> int:
    """Outputs of a built-in network for this data: 10, or as many as the labels need."""
    return max(10, int(_some(data)[1].max()) + 1)


def _some(data: ImageData) -> tuple[Array, Array]:
    """Its training images and their labels, or those of the first part that it has."""
    parts = ((data.x_train, data.y_train), (data.x_validation, data.y_validation))
    return next((part for part in parts if len(part[1])), (data.x_test, data.y_test))


def trained_model(
    name: str, weights: Path | None, data: ImageData, option: str = "--weights"
) -> nn.Module:
    """`load_model`, on the GPU where there is one."""
    network = load_model(name, weights, classes=outputs_for(data), option=option)
    return network.to(default_device())


def other_model(chosen: Chosen, weights: Path, data: ImageData, option: str) -> nn.Module:
    """A second network: as its own weights say, else built as the first one.

    ValueError where it does not go with the data.
    """
    info = info_of(weights, option)
    known = info is not None and info.model is not None
    name = model_of(weights, info) if info is not None and known else chosen.recipe.model
    network = trained_model(name, weights, data, option)
    count_classes(network, *_some(data), f"{option} {weights}")
    return network


class Judged(NamedTuple):
    """A trained network, the data, images and labels of one of its parts, and the valid inputs.

    `lines` are those of `Chosen`, and where the weights are for other inputs than the data has.
    """

    network: nn.Module
    data: ImageData
    x: Array
    y: Array
    bounds: tuple[Any, Any]
    lines: tuple[str, ...]


def judged(chosen: Chosen, split: str, images: int | None) -> Judged:
    """What is chosen, with the first `images` images of a part.

    ValueError where they do not go together.
    """
    loaded = load_data(chosen.recipe.data, training=False)
    x, y = (getattr(loaded, f"{letter}_{split}")[:images] for letter in "xy")
    few = images is not None and 0 < len(x) < images
    lines = chosen.lines + ((f"--images is {images}; {loaded.name} has {len(x)}",) if few else ())
    if len(x) == 0:
        raise UsageError(
            f"--split is {split!r}, which {loaded.name} does not have; allowed: "
            f"{' or '.join(part for part in PARTS if len(getattr(loaded, f'y_{part}')))}"
        )
    network = trained_model(chosen.recipe.model, chosen.weights, loaded)
    count_classes(network, x, y)
    bounds: tuple[Any, Any] = loaded.bounds
    if chosen.info is not None and chosen.info.bounds is not None:
        bounds = chosen.info.bounds
        try:
            low, high = (np.asarray(bound, dtype=float) for bound in bounds)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"--weights has the bounds {bounds!r:.60}; allowed: two numbers or arrays"
            ) from error
        if not ((low == loaded.bounds[0]).all() and (high == loaded.bounds[1]).all()):
            lines += (
                f"--weights is for inputs in [{low.min():g}, {high.max():g}]; those of "
                f"{loaded.name} are in [{loaded.bounds[0]:g}, {loaded.bounds[1]:g}]",
            )
    return Judged(network, loaded, x, y, bounds, lines)


def table_forms(frame: pandas.DataFrame) -> dict[str, Callable[[], str]]:
    """A table as CSV or as JSON records, by the file's ending (`options.TABLES`)."""

    def records() -> str:
        plain = json.loads(frame.to_json(orient="records", double_precision=15))
        return json.dumps(plain, indent=1) + "\n"

    return {".csv": lambda: frame.to_csv(index=False), ".json": records}


def write_output(path: Path | None, forms: Mapping[str, Callable[[], str]]) -> None:
    """Write the form that the file's ending names, atomically, and say so; None writes nothing."""
    if path is not None:
        replaced = path.exists()
        files.write_atomically(path, forms[path.suffix]().rstrip("\n") + "\n")
        tell(written(path, replaced))


def written(path: Path, replaced: bool) -> str:
    """What is said of a file that was written; `replaced`: another one was there."""
    return f"{'Replaced' if replaced else 'Written'}: {path}"


def tell(*lines: str) -> None:
    """Print lines that are no result, on stderr."""
    for line in lines:
        progress.line(line)


def show(content: object) -> None:
    """Print text, with Rich's markup, unbroken; or what shows itself as a table."""
    from rich.console import Console

    if isinstance(content, str):
        Console(highlight=False).print(content, soft_wrap=True)
    else:
        print(content)


def show_json(content: Any) -> None:
    """Print plain values as JSON, and nothing else on standard output."""
    print(json.dumps(content, indent=1))
