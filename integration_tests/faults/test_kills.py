"""Jobs that are killed at random moments and started again end as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("kill_worker.py")


def kill(kind: str, folder: Path, kills: int) -> None:
    result = subprocess.run(
        [sys.executable, str(WORKER), kind, str(folder), str(kills), "0"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    print(kind, found)
    assert found["kills"] == kills
    assert found["identical"] == kills
    assert found["leftovers"] == 0
    assert len(set(found["positions"])) > 1  # they hit different parts of the work


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes; needs os.fork")
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_ten_kills(kind: str, tmp_path: Path) -> None:
    kill(kind, tmp_path, 10)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes; needs os.fork")
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_fifty_kills(kind: str, tmp_path: Path) -> None:
    kill(kind, tmp_path, 50)
