"""A current directory as a user of the command line has it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

NETWORKS = Path(__file__).parent / "user_modules" / "nets_of_a_user.py"


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """A current directory with nets_of_a_user.py, which only the command makes importable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, NETWORKS.stem, raising=False)
    shutil.copy(NETWORKS, tmp_path)
    return tmp_path
