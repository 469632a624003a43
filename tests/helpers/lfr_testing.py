"""What the tests of several folders share; `pythonpath` in pyproject.toml lets pytest find it.

Not part of a package `tests`, for the wheel of RobustBench installs one of that name. Fixtures are
in the conftest.py of the folder that uses them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from art_lfr.cli import main

ROOT = Path(__file__).parents[2]


def run_python(
    *arguments: object,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    """A finished process of this Python: `run_python(script, 3)`, `run_python("-m", "art_lfr")`.

    It runs in `folder`, by default the current one, and `environment` is all that it has of
    variables, by default those of this process.
    """
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def printed_by_python(
    *arguments: object,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> str:
    """What such a process prints; the test fails where the process fails."""
    finished = run_python(*arguments, folder=folder, environment=environment, timeout=timeout)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def refusal_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which `art-lfr` refuses its arguments; it prints nothing else."""
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("art-lfr: error: ")
    assert printed.err.count("\n") == 1
    return printed.err


def pillow_image() -> Any:
    """Pillow's module of images; skips the test where it is not installed."""
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def save_image(
    path: Path, mode: str = "L", colour: Any = 0, size: tuple[int, int] = (4, 6)
) -> None:
    """A file with an image of one colour; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow_image().new(mode, size, colour).save(path)
