"""What a safetensors file of ours says of its network: one sealed record, read without torch.

The record is JSON in the metadata of the file. It has a check sum of itself and one of the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from art_lfr.errors import UsageError
from art_lfr.storage.files import as_path
from art_lfr.storage.records import digest

ENDING = ".safetensors"
FORMAT = 1
# The one entry of the metadata of our files. With more, their order would be random.
RECORD = "art-lfr"


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """What a file says of its network. None, or empty, where it is not known.

    Attributes:
        model: How to build it: the name of a built-in network, or `module.path:factory`.
        classes: Number of outputs.
        input_shape: Shape of one input.
        eps: Radius of the ball that it was trained for, in raw units; `norm` is "inf", "2" or "1".
        norm: The norm of that ball.
        bounds: Valid inputs (low, high): numbers, or nested lists in the shape of an input.
        preprocessing: "mean" and "std", numbers or nested lists that broadcast against one input:
            the network takes (x - mean) / std.
        data: What it was trained on: the name of a data set, or of a file.
        data_digest: Check sum of the training images and labels.
        settings: How it was trained.
        metrics: What was last measured in training.
        versions: Of the libraries that wrote the file.
    """

    model: str | None = None
    classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    eps: float | None = None
    norm: str | None = None
    bounds: tuple[Any, Any] | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    data_digest: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


# Of the values in a record, those that are there.
KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("model", "norm", "data", "data_digest"), str),
    "classes": int,
    "eps": (int, float),
    **dict.fromkeys(("input_shape", "bounds"), list),
    **dict.fromkeys(("preprocessing", "settings", "metrics", "versions"), dict),
}


def sealed(record: Mapping[str, Any], tensors: str) -> str:
    """A record as it stands in a file; `tensors` is the check sum of those.

    Numbers that JSON lacks become None, other things their text.
    """
    whole = {"format": FORMAT, **record, "tensors": tensors}
    text = json.dumps(whole, default=lambda value: getattr(value, "item", value.__str__)())
    plain = json.loads(text, parse_constant=lambda _: None)
    return json.dumps({**plain, "sha256": digest(plain)})


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: eight bytes of a length, then JSON."""
    if not path.is_file():  # a pipe would be waited for
        return False
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def record_in(path: Path) -> tuple[dict[str, Any], str] | None:
    """The record of a safetensors file and the check sum of its tensors; None: it has no record.

    ValueError where the file is damaged or of another version.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                raise UsageError("it is torn")
            header = json.loads(file.read(length))
        text = header.get("__metadata__", {}).get(RECORD)
        if text is None:
            return None
        record: dict[str, Any] = json.loads(text)
        right = record.pop("sha256") == digest(record)
        version, tensors = record.pop("format"), record.pop("tensors")
    except Exception as error:  # a record may be anything
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise UsageError(f"{path} is damaged or is no safetensors file ({reason})") from error
    if not right:
        raise UsageError(f"{path} is damaged: its check sum differs")
    if version != FORMAT:
        raise UsageError(f"{path} is of another version of art-lfr; allowed: format {FORMAT}")
    return record, tensors


def network_info(path: str | Path) -> NetworkInfo | None:
    """What a file says of its network; None for weights that another program wrote.

    Raises FileNotFoundError where there is no file, ValueError where it is damaged, or of a format
    that this version does not know.
    """
    whole = as_path("path", path)
    if not whole.is_file():
        raise FileNotFoundError(f"{path} is no file")
    found = record_in(whole) if is_safetensors(whole) else None
    if found is None:
        return None
    record, _ = found
    for name, value in record.items():
        right = name in KINDS and (value is None or isinstance(value, KINDS[name]))
        if not right or (name == "norm" and value not in (None, "inf", "2", "1")):
            raise UsageError(f"{path} has the {name} {value!r:.60}, which no art-lfr has written")
        if isinstance(value, list):
            record[name] = tuple(value)
    return NetworkInfo(**record)
