"""What a command writes to a terminal, and what to pipes: colours, width, progress, errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from lfr_testing import run_python

TRAIN = [
    *("train", "--eps", "0.1", "--epochs", "2", "--max-iter", "1", "--batch-size", "256"),
    *("--output", "a.pt", "--force"),
]
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@pytest.fixture
def environment():
    """An 80 columns wide terminal that knows colours."""
    plain = {name: os.environ[name] for name in os.environ if name not in ("NO_COLOR", "CI")}
    return {**plain, "COLUMNS": "80", "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}


def widest(text):
    return max(map(len, ESCAPE.sub("", text).splitlines()))


def test_piped(tmp_path, environment):
    def run(*arguments):
        command = ("-m", "art_lfr", *TRAIN, *arguments)
        return run_python(*command, folder=tmp_path, environment=environment, timeout=300)

    found = run()
    assert found.returncode == 0, found.stderr
    assert "\x1b" not in found.stdout
    assert "Weights: a.pt" in found.stdout
    assert widest(found.stdout) <= 80
    assert "epoch 2/2: loss" in found.stderr
    assert "\r" not in found.stderr

    wrong = run("--lr", "-1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("art-lfr: error: --lr is -1")
    assert "\x1b" not in wrong.stderr


def test_on_a_terminal(tmp_path, environment):
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    ours, theirs = pty.openpty()
    with (tmp_path / "errors.txt").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "art_lfr", *TRAIN],
            cwd=tmp_path,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=errors,
        )
        os.close(theirs)
        output = _everything(ours)
        status = process.wait(timeout=300)
        errors.seek(0)
        progress = errors.read()
    assert status == 0, progress
    assert "Weights: a.pt" in output
    assert widest(output) <= 80
    assert "epoch 2/2: loss" in progress


def _everything(terminal):
    """What is written to the terminal until its other end is closed."""
    parts = []
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that it is closed
            part = b""
        if not part:
            os.close(terminal)
            return b"".join(parts).decode()
        parts.append(part)
