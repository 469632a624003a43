"""Files that belong together are replaced together; locks, paths and names of users."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from art_lfr.errors import PlaceError, UsageError, WrongTypeError
from art_lfr.storage import files
from art_lfr.storage.files import (
    as_path,
    check_file_name,
    check_output,
    held,
    locked,
    make_directory,
    read_bytes,
    write_atomically,
    write_together,
)

posix = pytest.mark.skipif(os.name == "nt", reason="pipes, locks and flushes of POSIX")


def fail(file: BinaryIO) -> None:
    file.write(b"half")
    raise OSError("the disk is full")


def contents(directory: Path) -> dict[str, str]:
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*.*")}


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_file_that_cannot_be_written_leaves_all_as_they_were(
    tmp_path: Path, failing: int
) -> None:
    (tmp_path / "below").mkdir()
    places = [tmp_path / "a.txt", tmp_path / "below" / "b.txt", tmp_path / "c.txt"]
    write_together({places[0]: "old a", places[1]: b"old b"})
    before = {"a.txt": "old a", "below/b.txt": "old b"}
    assert contents(tmp_path) == before
    new = {place: fail if index == failing else "new" for index, place in enumerate(places)}
    with pytest.raises(OSError, match="the disk is full"):
        write_together(new)
    assert contents(tmp_path) == before
    write_together(dict.fromkeys(places, "new"))
    assert contents(tmp_path) == dict.fromkeys(["a.txt", "below/b.txt", "c.txt"], "new")


@pytest.fixture(params=["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL"])
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system that answers so where a file is to be locked."""
    fcntl = pytest.importorskip("fcntl", reason="only POSIX has it")
    number = getattr(errno, request.param)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return str(request.param)


def test_a_file_system_without_locks_is_warned_of(without_locks: str, tmp_path: Path) -> None:
    with pytest.warns(Warning, match="lock") as warned, locked(tmp_path, "checkpoint_dir"):
        write_atomically(tmp_path / "a", "text")
    assert len(warned) == 1
    assert (tmp_path / "a").read_text() == "text"


@pytest.mark.parametrize("without_locks", ["EACCES"], indirect=True)
def test_a_lock_that_is_forbidden_is_no_other_run(without_locks: str, tmp_path: Path) -> None:
    with (
        pytest.raises(PlaceError, match=r"a place that can be written to .*Permission denied"),
        locked(tmp_path, "checkpoint_dir"),
    ):
        pass


def flushing(number: int, *, opening: bool) -> Callable[..., Any]:
    """`os.open` or `os.fsync` of a file system that fails so for directories."""
    whole: Any = os.open if opening else os.fsync

    def call(place: Any, *arguments: Any) -> Any:
        if stat.S_ISDIR(os.stat(place).st_mode if os.path.exists(place) else 0):
            raise OSError(number, os.strerror(number))
        return whole(place, *arguments)

    return call


@posix
@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "EACCES", "ENOSYS", "EBADF"])
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_file_system_that_cannot_flush_directories_is_warned_of(
    call: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = flushing(getattr(errno, name), opening=call == "open")
    monkeypatch.setattr(files.os, call, fails)
    with pytest.warns(RuntimeWarning, match="cannot be flushed to the disk"):
        write_atomically(tmp_path / "a", "old")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is told once
        write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


@posix
def test_a_disk_that_fails_is_no_lack_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "fsync", flushing(errno.EIO, opening=False))
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "a", "text")


def test_a_lock_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "new", "state_dir"):
            with (
                pytest.raises(UsageError, match=r"state_dir is .*new', where another run is"),
                locked(tmp_path / "new", "state_dir"),
            ):
                pass
            with held(tmp_path / "new" / ".lock") as mine:
                assert not mine
    with (
        locked(tmp_path / "state", "state_path", file=True),
        pytest.raises(UsageError, match=r"state_path is .*; allowed: a file of its own"),
        locked(tmp_path / "state", "state_path", file=True),
    ):
        pass
    assert not (tmp_path / "state").exists()


BAD_PLACES: dict[str, Callable[[Path], object]] = {
    "no/such/a.txt": lambda path: None,
    "file/a.txt": lambda path: path.parent.write_text(""),
    "folder.txt": Path.mkdir,
    f"{'a' * 300}.txt": lambda path: None,
    f"{'é' * 122}.txt": lambda path: None,  # fits, but not what is written first
    "/proc/a.txt": lambda path: None,
    "pipe.txt": lambda path: getattr(os, "mkfifo", Path.mkdir)(path),
}


@posix
@pytest.mark.parametrize("name", BAD_PLACES)
def test_outputs_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    BAD_PLACES[name](path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"--output is .*; allowed: a file in a writable dir"):
        check_output(path, "--output", (".txt",))
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UsageError, match=r"--output is .*; allowed: a name ending in .png or .pdf"):
        check_output(path, "--output", (".png", ".pdf"))


def test_an_output_that_can_be_written_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.partial").write_text("of a run that was killed")
    assert check_output(tmp_path / "a.txt", "--output", (".txt",)) == tmp_path / "a.txt"
    assert not (tmp_path / "a.txt").exists()
    make_directory(tmp_path / "new" / "er", "state_dir")
    assert list((tmp_path / "new" / "er").iterdir()) == []
    with pytest.raises(OSError, match=r"state_dir is .*; allowed: a directory that is there or"):
        make_directory(tmp_path / ".a.txt.partial", "state_dir")


def test_paths_of_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    path = as_path("state_dir", "a/b")
    monkeypatch.chdir(tmp_path.parent)
    assert path == tmp_path / "a" / "b"
    assert as_path("state_dir", Path("~/c")) == tmp_path / "home" / "c"
    for value in (3, None, b"a", ["a"]):
        with pytest.raises(WrongTypeError, match=r"state_dir is .*; allowed: a path"):
            as_path("state_dir", value)
    for value in ("", "a\0b", "~no-such-user-of-this-machine/a"):
        with pytest.raises(UsageError, match=r"state_dir is .*; allowed: a path"):
            as_path("state_dir", value)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../a", "a/b", "/a", "a\\b", ".hidden", "a.", " a", "a\n", "a\x1b[2J"),
        *("a\0", "a" * 121, "é" * 61, "\ud800", 3, None, ["a"]),
    ],
)
def test_names_that_cannot_be_those_of_files(name: Any) -> None:
    with pytest.raises(UsageError, match=r"name is .*; allowed: a name of at most 120 bytes"):
        check_file_name("name", name)


@pytest.mark.parametrize("name", ["a", "PGD (40 steps), eps 0.1", "Größe", "a..b", "-", "a" * 120])
def test_names_of_files(name: str, tmp_path: Path) -> None:
    check_file_name("name", name)
    write_atomically(tmp_path / f"{name}.json", "text")


@posix
def test_pipes_are_not_read_and_not_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match=r"plan .*pipe' is no file"):
        read_bytes(tmp_path / "pipe", "plan")
    (tmp_path / "pipe").rename(tmp_path / ".a.partial")
    write_atomically(tmp_path / "a", "text")
    with pytest.raises(UsageError, match="has 4 bytes; allowed: at most 3"):
        read_bytes(tmp_path / "a", "plan", 3)
