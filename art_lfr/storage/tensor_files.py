"""Files of tensors and JSON types, such as checkpoints: loaded without running any code."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from art_lfr.errors import UsageError, WrongTypeError

FORMAT = 2
LAST = "last.pt"


def to_plain(value: Any, name: str) -> Any:
    """Copy nested state into tensors, dicts, lists and JSON types; TypeError for anything else.

    Tensors are detached and moved to the CPU. `name` is the path that an error shows.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: to_plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [to_plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise WrongTypeError(
        f"{name} is a {type(value).__name__}, which a checkpoint cannot hold; "
        "allowed: tensors, numbers, strings, and lists and dicts of them"
    )


def like_template(plain: Any, template: Any) -> Any:
    """Turn dicts that were Counters back into them, as in `template` (MultiStepLR has one)."""
    if isinstance(template, Counter):
        return Counter(plain)
    if isinstance(template, Mapping) and isinstance(plain, Mapping):
        return {key: like_template(item, template.get(key)) for key, item in plain.items()}
    if isinstance(template, list) and isinstance(plain, list) and len(plain) == len(template):
        return [like_template(*pair) for pair in zip(plain, template, strict=True)]
    return plain


def load_safely(path: Path) -> dict[str, Any]:
    """Read tensors and JSON types from a file of torch.save; no code in it is ever run.

    `weights_only=True` refuses foreign classes. Older torch could still be tricked through its
    tar and TorchScript formats, so anything but the plain zip format is refused before, as is a
    file with a bit that has changed.

    Raises:
        FileNotFoundError: Where there is no file.
        ValueError: Where it is damaged, of another kind, or asks for code to be run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
            if "data.pkl" not in names or "constants.pkl" in names:
                raise zipfile.BadZipFile("not written by torch.save")
            # The sums are in the file; torch itself does not look at them.
            if (spoilt := archive.testzip()) is not None:
                raise zipfile.BadZipFile(
                    f"{spoilt} is not what its check sum says, or torch was told to write none"
                )
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, from KeyError to UnpicklingError
        raise UsageError(
            f"{path} is damaged or is no file of tensors; allowed: a file written by torch.save "
            f"that holds tensors and plain values only ({str(error).splitlines()[0][:120]})"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds a {type(content).__name__}; allowed: a dict")
    return content


def load_run(path: Path) -> dict[str, Any]:
    """Read a training checkpoint; ValueError where the file is of another kind or version."""
    content = load_safely(path)
    if content.get("format") != FORMAT:
        raise UsageError(
            f"{path} has checkpoint format {content.get('format')!r}; allowed: {FORMAT}"
        )
    return content
