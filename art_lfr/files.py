"""Files written atomically: a kill at any moment leaves the old or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write text, bytes, or what a function writes, to a temporary file and rename it to `path`.

    The temporary file lies in the same directory, is synced to the disk before the rename, and is
    removed where writing fails.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "nt":  # directories cannot be opened there
        return
    # The rename itself must reach the disk too.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def check_output(path: Path, option: str, endings: Sequence[str]) -> None:
    """Raise before any work where the file cannot be written or has another ending."""
    listed = " or ".join(endings)
    if path.suffix not in endings:
        raise ValueError(f"{option} is {str(path)!r}; allowed: a name ending in {listed}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"{option} is {str(path)!r}; allowed: a file in a writable directory")
