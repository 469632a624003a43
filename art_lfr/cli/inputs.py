"""What the commands take and give: a model, its weights, data, tables, printed results.

Every mistake of a user's raises one of `art_lfr.errors` or an OSError, and names the option.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from art_lfr.core.arguments import Array
from art_lfr.core.criterion import logits_of
from art_lfr.core.imports import named_object
from art_lfr.core.modes import default_device, device_of, mode
from art_lfr.core.randomness import preserved_random_state, seed_global_generators
from art_lfr.core.samples import class_labels
from art_lfr.data import ImageData, load
from art_lfr.data.recipes import find_data
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.models import BUILT_IN
from art_lfr.storage import files
from art_lfr.storage.tensor_files import load_weights

if TYPE_CHECKING:
    import pandas


def load_model(
    name: str, weights: Path | None, seed: int = 0, classes: int = 10, option: str = "--weights"
) -> nn.Module:
    """A built-in network, or what `module.path:factory` returns, with weights where given.

    `seed` fixes the first weights, `classes` the number of outputs of a built-in network. The
    current directory can be imported from, as with `python -m`. Weights are a state dict written by
    `torch.save`, see `load_weights`; errors name `option`.
    """
    allowed = f"{', '.join(BUILT_IN)}, or module.path:factory"
    if name in BUILT_IN:
        model = BUILT_IN[name](seed, classes=classes)
    elif ":" in name:
        try:
            factory = named_object(name)
        except ValueError as error:
            raise UsageError(f"--model is {error}; allowed: {allowed}") from error
        if not callable(factory):
            raise UsageError(f"--model is {name!r}, which is not callable; allowed: {allowed}")
        # A factory draws its first weights from the global generators.
        with preserved_random_state(torch.device("cpu")):
            seed_global_generators(seed)
            try:
                model = factory()
            except TypeError as error:
                raise UsageError(
                    f"--model is {name!r}, which fails ({error}); allowed: a factory that takes no "
                    "arguments and returns a torch.nn.Module"
                ) from error
        if not isinstance(model, nn.Module):
            raise WrongTypeError(
                f"--model is {name!r}, which returned a {type(model).__name__}; allowed: a factory "
                "that returns a torch.nn.Module"
            )
    else:
        raise UsageError(f"--model is {name!r}; allowed: {allowed}")
    if weights is not None:
        try:
            load_weights(model, weights.expanduser())
        except (OSError, ValueError) as error:
            raise UsageError(f"{option} is {str(weights)!r}: {error}") from error
    return model


def load_data(name: str, test: int | None = None) -> ImageData:
    """A data set by its name, a user's .npz file, or a folder of images; `test` as in `load`."""
    return load(find_data("--data", name), test=test)


def count_classes(model: nn.Module, x: Array, y: Array) -> int:
    """The model's classes; ValueError where it does not run on the images or lacks a label."""
    first = torch.from_numpy(x[:1])
    try:
        with torch.no_grad(), mode(model, training=False):
            logits = logits_of(model(first.to(device_of(model, first))))
    except RuntimeError as error:
        raise UsageError(
            f"--model does not run on images of shape {x.shape[1:]}: {error}; allowed: a network "
            "made for --data"
        ) from error
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise UsageError(
            f"--model gives outputs of shape {tuple(logits.shape)} for one image; allowed: logits "
            "of shape (1, classes)"
        )
    class_labels("--data", y, len(x), logits.shape[1])
    return logits.shape[1]


def outputs_for(data: ImageData) -> int:
    """Outputs of a built-in network for this data: 10, or as many as the labels need."""
    return max(10, int(data.y_train.max()) + 1)


def trained_model(
    name: str, weights: Path | None, data: ImageData, option: str = "--weights"
) -> nn.Module:
    """`load_model`, on the GPU where there is one."""
    network = load_model(name, weights, classes=outputs_for(data), option=option)
    return network.to(default_device())


def judged(
    model: str, weights: Path | None, data: str, split: str, images: int | None
) -> tuple[nn.Module, ImageData, Array, Array]:
    """A trained network, the data, and the first `images` images and labels of one of its parts.

    ValueError where they do not go together.
    """
    loaded = load_data(data)
    x, y = (getattr(loaded, f"{letter}_{split}")[:images] for letter in "xy")
    if len(x) == 0:
        raise UsageError(
            f"--split is {split!r}, which {loaded.name} does not have; allowed: a part that is "
            "there, such as train"
        )
    network = trained_model(model, weights, loaded)
    count_classes(network, x, y)
    return network, loaded, x, y


def table_forms(frame: pandas.DataFrame) -> dict[str, Callable[[], str]]:
    """A table as CSV or as JSON records, by the file's ending (`options.TABLES`)."""

    def records() -> str:
        plain = json.loads(frame.to_json(orient="records", double_precision=15))
        return json.dumps(plain, indent=1) + "\n"

    return {".csv": lambda: frame.to_csv(index=False), ".json": records}


def write_output(path: Path | None, forms: Mapping[str, Callable[[], str]]) -> None:
    """Write the form that the file's ending names, atomically; None writes nothing."""
    if path is not None:
        files.write_atomically(path, forms[path.suffix]())
        print(f"Written: {path}", file=sys.stderr)


def show(content: Any) -> None:
    """Print text with Rich's markup, unbroken, or a table that fits the terminal."""
    from rich.console import Console

    Console(highlight=False).print(content, soft_wrap=not hasattr(content, "columns"))


def show_json(content: Any) -> None:
    """Print plain values as JSON, and nothing else on standard output."""
    print(json.dumps(content, indent=1))
