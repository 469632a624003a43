"""Jobs that are killed at random moments and started again end as if nothing had happened.

Exports too: an older one at the place stays, or is replaced as a whole.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from lfr_testing import printed_by_python

SCRIPT = Path(__file__).parent / "scripts" / "kill_jobs.py"


def kill(kind: str, folder: Path, kills: int) -> dict[str, Any]:
    printed = printed_by_python(SCRIPT, kind, folder, kills, 0, timeout=1800)
    found = json.loads(printed.splitlines()[-1])
    print(kind, found)
    assert found["kills"] == kills
    assert found["identical"] == kills
    assert found["leftovers"] == 0
    assert len(set(found["positions"])) > 1  # they hit different parts of the work
    return found


def kill_exports(kind: str, folder: Path, kills: int) -> None:
    if kind == "entry":
        try:
            import art_lfr.robustbench  # noqa: F401
        except ImportError as error:
            pytest.skip(f"RobustBench cannot be imported here: {error}")
    found = kill(kind, folder, kills)
    assert found["torn"] == 0
    # Renames of several files cannot be one; a kill in between is rare, and the repeat fixes it.
    assert found["mixed"] <= (kills // 10 if kind == "entry" else 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes; needs os.fork")
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_ten_kills(kind: str, tmp_path: Path) -> None:
    kill(kind, tmp_path, 10)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes; needs os.fork")
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_fifty_kills(kind: str, tmp_path: Path) -> None:
    kill(kind, tmp_path, 50)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes; needs os.fork")
@pytest.mark.parametrize("kind", ["weights", "examples", "entry"])
def test_five_kills_of_an_export(kind: str, tmp_path: Path) -> None:
    kill_exports(kind, tmp_path, 5)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes; needs os.fork")
@pytest.mark.parametrize("kind", ["weights", "examples", "entry"])
def test_fifty_kills_of_an_export(kind: str, tmp_path: Path) -> None:
    kill_exports(kind, tmp_path, 50)
