"""A folder of images that the tests of folders and of names share."""

from __future__ import annotations

from pathlib import Path

import pytest
from lfr_testing import save_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of grey images whose brightness tells class and number."""
    for label, name in enumerate(["ant", "bee", "cat"]):
        for number in range(5):
            save_image(
                tmp_path / "pets" / "train" / name / f"{number}.png", colour=50 * label + number
            )
        save_image(tmp_path / "pets" / "test" / name / "a.PNG", colour=50 * label + 9)
        (tmp_path / "pets" / "train" / name / "notes.txt").write_text("no image")
        save_image(tmp_path / "pets" / "train" / name / ".hidden.png", colour=255)
    return tmp_path / "pets"
