"""Evaluation by two processes on the CPU, started by `accelerate launch`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lfr_testing import ROOT, launcher, run_python

pytest.importorskip("accelerate", reason="accelerate is not installed")
SCRIPT = Path(__file__).with_name("scripts") / "judge_in_a_process.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def launch(size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    start = launcher(size) if size > 1 else []
    return run_python(*start, SCRIPT, *arguments, environment=ENVIRONMENT, timeout=300)


def judged(size: int, directory: Path, *arguments: object) -> list[dict[str, Any]]:
    """What each process ends with."""
    finished = launch(size, directory / "found", *arguments)
    assert finished.returncode == 0, finished.stderr
    return [
        torch.load(directory / f"found.{rank}of{size}", weights_only=True) for rank in range(size)
    ]


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    (one,) = judged(1, tmp_path, "table")
    main, other = judged(2, tmp_path, "table")
    names = [row["name"] for row in one["table"]["rows"]]
    attacks = ["PGD-40", "APGD-T", "Square", "FGSM", "MI-PGD", "brightened"]
    assert names == ["clean", *attacks, "worst case"]
    assert 0 < one["table"]["rows"][-1]["accuracy"] < one["table"]["rows"][0]["accuracy"] <= 1
    assert one["table"] == main["table"] == other["table"]
    assert main["seconds"] == other["seconds"]
    examples = [np.load(tmp_path / f"found.{size}.npz") for size in (1, 2)]
    assert examples[0].files == examples[1].files
    for name in examples[0].files:
        assert np.array_equal(examples[0][name], examples[1][name]), name
    # A model that draws random numbers is judged by the main process alone.
    assert one["noisy"] == main["noisy"] == other["noisy"]
    assert one["told"] == main["told"]
    assert other["told"] == []
    # What training measures after an epoch.
    assert one["monitor"] == main["monitor"] == other["monitor"]
    assert torch.equal(one["labels"], main["labels"])


def test_a_killed_autoattack_goes_on_with_one_process_or_with_two(tmp_path: Path) -> None:
    (one,) = judged(1, tmp_path, "autoattack")
    for left in (1, 2):
        state_dir = tmp_path / f"state-{left}"
        killed = launch(2, tmp_path / "x", "autoattack", "--state-dir", state_dir, "--end-at", 3)
        assert killed.returncode != 0
        state = json.loads((state_dir / "autoattack.state").read_text())["run"]
        assert (state["done"], state["batch"]) == (1, 0), "not where it was killed"
        for found in judged(left, tmp_path, "autoattack", "--state-dir", state_dir):
            assert found["table"] == one["table"]


def test_an_attack_that_fails_in_one_process_ends_both_with_its_error(tmp_path: Path) -> None:
    failed = launch(2, tmp_path / "x", "autoattack", "--raise-at", 2)
    assert failed.returncode != 0
    assert failed.stderr.count(" RuntimeError: an attack fails in the last process") == 2


def test_other_data_in_one_process_is_refused_in_both(tmp_path: Path) -> None:
    failed = launch(2, tmp_path / "x", "autoattack", "--different")
    assert failed.returncode != 0
    assert failed.stderr.count("UsageError: x differs between the processes") == 2


def test_the_command_prints_and_writes_one_table(tmp_path: Path) -> None:
    pytest.importorskip("typer", reason="the commands are not installed")

    def command(size: int) -> tuple[str, dict[str, Any]]:
        start = launcher(size) if size > 1 else []
        weights = ROOT / "networks" / "digits-0.1.safetensors"
        finished = run_python(
            *start,
            *("-m", "art_lfr", "evaluate", "--weights", weights, "--images", 30),
            *("--batch-size", 8, "--attacks", "FGSM,PGD", "--output", "table.json"),
            folder=tmp_path,
            environment=ENVIRONMENT,
        )
        assert finished.returncode == 0, finished.stderr
        assert finished.stderr.count("worst case: ") == 1
        assert finished.stderr.count("Written: ") + finished.stderr.count("Replaced: ") == 1
        found = json.loads((tmp_path / "table.json").read_text())
        for row in found["rows"]:
            del row["seconds"]
        return finished.stdout, found

    (_, one), (printed, two) = command(1), command(2)
    assert one == two
    assert printed.count("95 % interval") == 1
