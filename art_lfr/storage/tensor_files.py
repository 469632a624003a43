"""Files of tensors and JSON types, such as checkpoints: loaded without running any code.

Those of `torch.save`, and safetensors files, of which ours hold a record of what they are.
"""

from __future__ import annotations

import re
import tarfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.storage.files import read_bytes, write_atomically
from art_lfr.storage.identity import seal
from art_lfr.storage.info import RECORD, is_safetensors, record_in, sealed

FORMAT = 5
LAST = "last.pt"
# With this torch.save began its files before torch 1.6.
BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# Where published checkpoints keep their weights, and what wrappers put before their names.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
# The layers of TRADES' SmallCNN, which LFR's authors train too, as `paper_cnn` numbers them.
TRADES_LAYERS = {
    **{f"feature_extractor.conv{i}": place for i, place in enumerate((0, 2, 5, 7), 1)},
    **{f"classifier.fc{i}": place for i, place in enumerate((11, 13, 15), 1)},
}


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
    tar and TorchScript formats, so anything but the plain zip format, and the one of torch before
    1.6, is refused before, as is a zip file with a bit that has changed.

    Raises:
        FileNotFoundError: Where there is no file.
        ValueError: Where it is damaged, of another kind, or asks for code to be run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    try:
        with path.open("rb") as file:
            begins = file.read(len(BEFORE_1_6))
        if begins != BEFORE_1_6 or tarfile.is_tarfile(path):
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a coming end of the older format
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, from KeyError to UnpicklingError
        # torch's own advice is to load it unsafely.
        wanted = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
        reason = str(error).split("\n")[0][:120]
        if wanted:
            reason = (
                f"it asks for {wanted[1]}. If you trust who made it, keep its weights alone: load "
                "it with torch.load(..., weights_only=False) and torch.save its state dict"
            )
        raise UsageError(
            f"{path} is damaged or is no file of tensors; allowed: a file written by torch.save "
            f"that holds tensors and plain values only ({reason or type(error).__name__})"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds a {type(content).__name__}; allowed: a dict")
    return content


def _check_archive(path: Path) -> None:
    """Raise BadZipFile for anything but what torch.save writes, with every bit as it was."""
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
        packed = any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())
        if "data.pkl" not in names or "constants.pkl" in names or packed:
            raise zipfile.BadZipFile("not written by torch.save")
        # The sums are in the file; torch itself does not look at them.
        if (spoilt := archive.testzip()) is not None:
            raise zipfile.BadZipFile(
                f"{spoilt} is not what its check sum says, or torch was told to write none"
            )


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors and a record of plain values, sealed in the metadata.

    Raises as `check_storable` does, before anything is written.
    """
    check_storable(tensors)
    plain = {
        name: value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    write_atomically(path, safetensors.torch.save(plain, {RECORD: sealed(record, seal(plain))}))


def check_storable(state: Mapping[str, Any]) -> None:
    """Raise ValueError for a state dict that safetensors cannot hold, naming what it cannot."""
    for name, value in state.items():
        problem = f"a {type(value).__name__}"
        if isinstance(value, Tensor):
            try:
                safetensors.torch.save({name: torch.empty(0, dtype=value.dtype)})
                if value.layout == torch.strided:
                    continue
                problem = f"of layout {value.layout}"
            except (KeyError, ValueError, RuntimeError):
                problem = f"of type {value.dtype}"
        raise UsageError(
            f"the network has {name!r} in its state, {problem}, which safetensors cannot hold; "
            "allowed: dense tensors of usual types (torch.save its state dict instead)"
        )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; those of ours are as their record says.

    Raises FileNotFoundError where there is no file, ValueError where it is damaged.
    """
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(read_bytes(path, "weights"))
    except Exception as error:  # the reader has errors of its own
        if isinstance(error, OSError):
            raise
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise UsageError(f"{path} is damaged or is no safetensors file ({reason})") from error
    found = record_in(path)
    if found is not None and found[1] != seal(tensors):
        raise UsageError(f"{path} is damaged: its check sum differs")
    return tensors


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of a file into a model: a state dict, or what is usual around one.

    That is a dict with the state dict under one of `WRAPPERS`, and names with one of `PREFIXES`
    before each, as wrappers of modules leave them; or a safetensors file. Layers of the SmallCNN
    may have the names of TRADES' code. Raises as `load_safely` does, and ValueError for weights
    that are NaN, of another kind of type, or do not fit, naming what would.
    """
    content: Any = read_safetensors(path) if is_safetensors(path) else load_safely(path)
    while inner := [content[key] for key in WRAPPERS if isinstance(content.get(key), dict)]:
        content = inner[0]
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UsageError(
                f"{path} has a {type(value).__name__} under {name!r:.60}; allowed: a dict of names "
                f"and tensors, by itself or under one of {', '.join(WRAPPERS)}"
            )
        if value.is_floating_point() and bool(value.isnan().any()):
            raise UsageError(f"{path} has NaN in {name!r}; allowed: weights without")
    own = model.state_dict()
    for prefix in PREFIXES * 2:  # in either order
        if not own.keys() & content.keys() and all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): value for name, value in content.items()}
    layers = {name.rpartition(".")[0] for name in content}
    if layers == TRADES_LAYERS.keys() and not own.keys() & content.keys():
        content = {
            f"{TRADES_LAYERS[layer]}.{kind}": content[f"{layer}.{kind}"]
            for layer, _, kind in (name.rpartition(".") for name in content)
        }
    # torch before 0.4.1 did not count batches; a plain dict says that it may be as old.
    lacking = [n for n in own if n not in content and not n.endswith("num_batches_tracked")]
    foreign = [name for name in content if name not in own]
    if lacking or foreign:
        shapes = [[tuple(v.shape) for v in d.values() if v.dim()] for d in (own, content)]
        fix = "weights of this network"
        if shapes[0] == shapes[1]:
            fix += (
                ". These have its shapes in its order: to rename them, torch.save(dict(zip("
                "model.state_dict(), weights.values())), 'renamed.pt')"
            )
        parts = [("lacks", lacking), ("has", foreign)]
        named = " and ".join(f"{verb} {_first(names)}" for verb, names in parts if names)
        raise UsageError(f"{path} does not fit the model: it {named}; allowed: {fix}")
    for name, value in content.items():
        if isinstance(own[name], Tensor):  # else the extra state of a module
            _check_type(path, name, value, own[name])
    try:
        model.load_state_dict(dict(content))
    except (RuntimeError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} does not fit the model: {detail}") from error


def _check_type(path: Path, name: str, value: Tensor, own: Tensor) -> None:
    """Raise ValueError for values that torch would cut off to the model's type without a word."""
    cut_off = value.is_complex() or own.is_floating_point() != value.is_floating_point()
    if cut_off and not own.is_complex():
        kind = "floating" if own.is_floating_point() else "integer or boolean"
        raise UsageError(
            f"{path} has {name!r} of type {value.dtype}, which is {own.dtype} in the model; "
            f"allowed: any {kind} type"
        )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def load_run(path: Path) -> dict[str, Any]:
    """Read a training checkpoint; ValueError where the file is of another kind or version."""
    content = load_safely(path)
    if content.get("format") != FORMAT:
        raise UsageError(
            f"{path} has checkpoint format {content.get('format')!r}; allowed: {FORMAT}"
        )
    return content
