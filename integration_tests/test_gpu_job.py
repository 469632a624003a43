"""The self-contained job of benchmarks/gpu, for a few seconds on a CPU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from lfr_testing import ROOT, run_python

NAME = "mnist-paper-cnn"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    # From the source tree, without an installation.
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    script = ROOT / "benchmarks" / "gpu" / "gpu_job.py"
    return run_python(script, *arguments, environment=environment, timeout=300)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    images = {f"x_{part}": draw.integers(0, 256, (n, 28, 28), np.uint8) for part, n in PARTS}
    labels = {f"y_{part}": np.arange(n) % 10 for part, n in PARTS}
    np.savez(tmp_path / "mnist.npz", **images, **labels)
    return tmp_path / "mnist.npz"


# The job judges test images from 1,000 on.
PARTS = (("train", 20), ("test", 1010))


def test_the_job_leaves_a_result_and_weights_that_a_network_loads(
    data: Path, tmp_path: Path
) -> None:
    finished = run(NAME, data, tmp_path / "out", 0.01)
    assert finished.returncode == 0, finished.stderr
    result = json.loads((tmp_path / "out" / f"{NAME}.json").read_text())
    assert result["test images"] == [1000, 1010]
    assert result["settings"]["model"] == "paper-cnn"
    assert result["settings"]["seed"] == 0
    assert "AutoAttack" in result["not run"]
    for method in ("lfr", "pgd"):
        assert result[method]["epochs"] >= 1
        assert result[method]["images"] == 10
        assert 0 <= result[method]["PGD-40"] <= result[method]["clean"] <= 1
    assert result["pgd"]["lam"] == 0 < result["lfr"]["lam"]

    trained = tmp_path / "out" / result["lfr"]["weights"]
    from art_lfr.cli.inputs import load_model

    weights = [p.abs().sum().item() for p in load_model("paper-cnn", trained).parameters()]
    fresh = [p.abs().sum().item() for p in load_model("paper-cnn", None).parameters()]
    assert len(weights) == len(fresh)
    assert weights != fresh


def test_a_job_without_time_is_refused(data: Path, tmp_path: Path) -> None:
    refused = run(NAME, data, tmp_path / "out", 0)
    assert refused.returncode == 1
    assert "minutes is 0; allowed: above 0" in refused.stderr
    assert not (tmp_path / "out").exists()
