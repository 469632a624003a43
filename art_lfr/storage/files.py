"""Files written atomically: a kill at any moment leaves the old or the new one, never a part.

And directories that one run has to itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from filelock import FileLock, Timeout

from art_lfr.errors import UsageError

Content: TypeAlias = str | bytes | Callable[[BinaryIO], object]


def write_atomically(path: Path, content: Content) -> None:
    """Write text, bytes, or what a function writes, to a temporary file and rename it to `path`.

    The temporary file lies in the same directory, is synced to the disk before the rename, and is
    removed where writing fails.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, Content]) -> None:
    """Write several files as `write_atomically` does, and rename none before all are written.

    Where writing fails, all are as they were. A kill leaves the old ones or the new ones, but for
    the moment in which they are renamed one after another, in this order.
    """
    partial = {path: path.with_name(f".{path.name}.partial") for path in contents}
    try:
        for path, content in contents.items():
            with partial[path].open("wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        for path, written in partial.items():
            written.replace(path)
    except BaseException as error:
        for written in partial.values():
            written.unlink(missing_ok=True)
        # Of a full disk torch says what its archive lacks, not why.
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    if os.name == "nt":  # directories cannot be opened there
        return
    # The renames themselves must reach the disk too.
    for parent in {path.parent for path in contents}:
        directory = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextmanager
def locked(directory: Path | None, name: str) -> Iterator[None]:
    """Make a directory and lock it: no other call may, here or in another process.

    Raises ValueError, with `name` in it, where one does, and OSError where it cannot be made or
    written to. The lock ends with the block, or with the process and those that it has forked; its
    file, `.lock`, may stay. None: nothing is locked.
    """
    if directory is None:
        yield
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{name} is {str(directory)!r}; allowed: a directory that is there or can be made "
            f"({error})"
        ) from error
    if not os.access(directory, os.W_OK):
        raise OSError(f"{name} is {str(directory)!r}; allowed: a directory that can be written to")
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UsageError(
            f"{name} is {str(directory)!r}, where another run is at work; allowed: a directory of "
            "its own"
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_output(path: Path, option: str, endings: Sequence[str]) -> None:
    """Raise before any work where the file cannot be written or has another ending."""
    listed = " or ".join(endings)
    if path.suffix not in endings:
        raise UsageError(f"{option} is {str(path)!r}; allowed: a name ending in {listed}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option} is {str(path)!r}; allowed: a file in a writable directory")
