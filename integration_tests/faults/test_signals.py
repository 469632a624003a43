"""A command that is asked to stop: its exit status, what it says, and that it can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

TRAIN = [sys.executable, "-m", "art_lfr", "train", "--data", "digits", "--eps", "0.1"]
SHORT = ["--max-iter", "1", "--batch-size", "256"]


def train(directory: Path, *more: str, epochs: int) -> subprocess.Popen[str]:
    keep = ["--checkpoint-dir", str(directory), "--output", str(directory / "weights.pt")]
    return subprocess.Popen(
        [*TRAIN, *SHORT, *keep, "--epochs", str(epochs), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore SIGINT, and so would what the tests start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(3000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{path} has not come")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("sent", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_stopped_training_says_how_to_go_on(
    tmp_path: Path, sent: signal.Signals, status: int, word: str
) -> None:
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    process = train(stopped, epochs=10_000)
    wait_for(stopped / "last.pt", process)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status
    assert f"art-lfr: error: {word}; the same command with --resume goes on" in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in stopped.iterdir()) == [".lock", "last.pt"]
    done = len(torch.load(stopped / "last.pt", weights_only=True)["history"])
    # Not to the end: a run with another number of epochs would be another run.
    process = train(stopped, "--resume", epochs=10_000)
    deadline = time.monotonic() + 240
    while len(torch.load(stopped / "last.pt", weights_only=True)["history"]) <= done:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.kill()
    process.communicate()
