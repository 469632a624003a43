"""Files that belong together are replaced together, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from art_lfr.storage.files import write_together


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
