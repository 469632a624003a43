"""JSON files with a check sum: what was damaged on the disk is refused, not believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from art_lfr.errors import UsageError
from art_lfr.storage.files import read_bytes, write_atomically

if TYPE_CHECKING:
    from torch import Tensor


def digest(content: Any) -> str:
    """SHA-256 of JSON types, whatever the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Write JSON types atomically, their check sum with them."""
    plain = json.loads(json.dumps(content))  # as it is read: the keys of all dicts are strings
    text = json.dumps({**plain, "sha256": digest(plain)}, indent=1)
    write_atomically(path, text + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote; ValueError where it is anything else."""
    try:
        content = json.loads(read_bytes(path, "record"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError too
        raise _damaged(path, "not JSON") from error
    if not isinstance(content, dict):
        raise _damaged(path, "not an object")
    if "sha256" not in content:
        raise _damaged(path, "it has no check sum")
    if content.pop("sha256") != digest(content):
        raise _damaged(path, "its check sum differs")
    return content


def _damaged(path: Path, reason: str) -> ValueError:
    return UsageError(
        f"{path} is damaged, or of an earlier version ({reason}); allowed: a file as it was written"
    )


def pack(mask: Tensor) -> str:
    """A boolean mask of shape (N,) as hexadecimal digits."""
    return np.packbits(mask.cpu().numpy()).tobytes().hex()


def unpack(digits: str, count: int) -> Tensor:
    """The mask of shape (count,) that `pack` wrote."""
    import torch  # here: what reads records alone does without its seconds of import

    bits = np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)
    return torch.from_numpy(np.unpackbits(bits, count=count).astype(bool))
