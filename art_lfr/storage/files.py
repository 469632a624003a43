"""Files written atomically: a kill at any moment leaves the old or the new one, never a part.

And directories that one run has to itself, and what a user's path may be.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from filelock import FileLock, Timeout

from art_lfr.errors import PlaceError, UsageError, WrongTypeError

if sys.platform != "win32":
    import fcntl

Content: TypeAlias = str | bytes | Callable[[BinaryIO], object]
# What file systems answer that know no locks, or cannot flush directories.
MISSING = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
# Bytes of a user's name: it gets endings, and file systems take 255.
LONGEST_NAME = 120
_told: set[tuple[Path, str]] = set()


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
    partial = {path: _partial(path) for path in contents}
    try:
        for path, content in contents.items():
            if partial[path].exists() and not partial[path].is_file():
                partial[path].unlink()  # a pipe would be waited for
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
    # The renames themselves must reach the disk too.
    for parent in {path.parent for path in contents}:
        _flush(parent)


def _flush(directory: Path) -> None:
    """Bring the names in a directory to the disk, where the file system can."""
    if os.name == "nt":  # directories cannot be opened there
        return
    try:
        opened = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        if error.errno not in (*MISSING, errno.EACCES, errno.EBADF):
            raise
        _warn_once(
            directory,
            f"names cannot be flushed to the disk there ({error.strerror}): after a power failure "
            "the files written last may be missing",
        )


def _warn_once(place: Path, problem: str) -> None:
    """Warn of what a file system lacks, once for each place and process."""
    if (place, problem) not in _told:
        _told.add((place, problem))
        warnings.warn(f"{place}: {problem}", RuntimeWarning, stacklevel=2)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@contextmanager
def held(lock_file: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock file for a while; False where another call does, here or in another process.

    With `wait` the other one is waited for. The lock ends with the block, or with the process and
    those that it has forked; its file may stay. Where the file system knows no locks, a warning
    says so and nothing is held.
    """
    lock, mine = FileLock(lock_file), True
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        # Older filelock takes any error for another's lock.
        if (problem := _refusal(lock_file)) is None:
            mine = False
        elif problem.errno in MISSING:
            _warn_of_no_locks(lock_file, problem)
        else:
            raise problem from None
    except (OSError, NotImplementedError) as error:
        # Older filelock raises the second for a file system without locks.
        if isinstance(error, OSError) and error.errno not in MISSING:
            raise
        _warn_of_no_locks(lock_file, error)
    try:
        yield mine
    finally:
        lock.release()


def _warn_of_no_locks(lock_file: Path, problem: Exception) -> None:
    _warn_once(
        lock_file.parent,
        f"files cannot be locked there ({problem}): see to it that no second run uses the "
        "directory at the same time",
    )


def _refusal(lock_file: Path) -> OSError | None:
    """Why the file system gives no lock, other than that another has it: filelock does not say."""
    if sys.platform == "win32":
        return None
    with lock_file.open("r+b") as file:  # NFS locks no file that is only read
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK) else None
    return None


@contextmanager
def locked(path: Path | None, name: str, *, file: bool = False) -> Iterator[None]:
    """Make a directory and lock it: no other call may, here or in another process.

    With `file` a file's name is locked, in a directory that is there. Raises ValueError, with
    `name` in it, where another call has the lock, and PlaceError where the place cannot be made or
    written to. None: nothing is locked.
    """
    if path is None:
        yield
        return
    if not file:
        make_directory(path, name)
    lock_file = path.with_name(f".{path.name}.lock") if file else path / ".lock"
    with ExitStack() as stack:
        try:
            mine = stack.enter_context(held(lock_file))
        except OSError as error:
            raise PlaceError(
                f"{name} is {str(path)!r}; allowed: a place that can be written to ({error})"
            ) from error
        if not mine:
            raise UsageError(
                f"{name} is {str(path)!r}, where another run is at work; allowed: a "
                f"{'file' if file else 'directory'} of its own"
            )
        yield


def as_path(name: str, value: object) -> Path:
    """A user's path, the same wherever the process changes to later; `~` is the home directory.

    Raises TypeError or ValueError, naming the parameter, for anything that is no path.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise WrongTypeError(f"{name} is {value!r}; allowed: a path")
    if not text or "\0" in text:
        raise UsageError(f"{name} is {text!r}; allowed: a path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # the home of nobody
        raise UsageError(f"{name} is {text!r}; allowed: a path ({error})") from error


def check_file_name(name: str, value: object) -> None:
    """Raise unless a user's name can be part of a file's name, whatever the file system."""
    if (
        not isinstance(value, str)
        or not 0 < len(value.encode(errors="replace")) <= LONGEST_NAME
        or not value.isprintable()
        or value.strip(" .") != value
        or set(value) & set("/\\")
    ):
        raise UsageError(
            f"{name} is {value!r:.100}; allowed: a name of at most {LONGEST_NAME} bytes without "
            "slashes and control characters, and without dots and spaces at its ends"
        )


def make_directory(path: Path, name: str) -> None:
    """Make a directory where there is none; PlaceError, naming `name`, where it is of no use."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlaceError(
            f"{name} is {str(path)!r}; allowed: a directory that is there or can be made ({error})"
        ) from error
    try:
        _try_writing(path / f".{os.getpid()}.partial")
    except OSError as error:
        raise PlaceError(
            f"{name} is {str(path)!r}; allowed: a directory that can be written to ({error})"
        ) from error


def check_output(path: str | Path, option: str, endings: Sequence[str] = ()) -> Path:
    """The path as `as_path` has it; PlaceError, before any work, where no file can be written.

    `endings` are those that the name may have.
    """
    whole = as_path(option, path)
    if endings and whole.suffix not in endings:
        listed = " or ".join(endings)
        raise UsageError(f"{option} is {str(path)!r}; allowed: a name ending in {listed}")
    try:
        if whole.exists() and not whole.is_file():
            raise IsADirectoryError(errno.EISDIR, "it is no regular file")
        _try_writing(_partial(whole))
    except OSError as error:
        raise PlaceError(
            f"{option} is {str(path)!r}; allowed: a file in a writable directory ({error.strerror})"
        ) from error
    return whole


def _try_writing(path: Path) -> None:
    """Make a file and remove it: rights, length of the name and kind of the place all count."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        if path.is_dir():
            raise
        return  # of a run that was killed, or that writes just now
    path.unlink()


def read_bytes(path: Path, what: str, most: int | None = None) -> bytes:
    """The content of a regular file: a pipe or a device would be waited for without end.

    Raises FileNotFoundError where there is no such file, ValueError for more than `most` bytes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{what} {str(path)!r} is no file")
    if most is not None and path.stat().st_size > most:
        raise UsageError(
            f"{what} {str(path)!r} has {path.stat().st_size} bytes; allowed: at most {most}"
        )
    return path.read_bytes()
