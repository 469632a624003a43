"""The job of benchmarks/gpu, rehearsed on a CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lfr_testing import ROOT, printed_by_python, run_python

GPU = ROOT / "benchmarks" / "gpu"


def run(*arguments: object) -> Any:
    return run_python(GPU / "gpu_job.py", *arguments, timeout=600)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = np.random.default_rng(0)
    parts = {"train": 20, "test": 6}
    images = {f"x_{part}": draw.integers(0, 256, (n, 32, 32, 3), np.uint8)
              for part, n in parts.items()}  # fmt: skip
    labels = {f"y_{part}": np.arange(n) % 10 for part, n in parts.items()}
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, **images, **labels)
    return path


@pytest.fixture(scope="module")
def output(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    finished = run("all", "--rehearse", "--data", data, "--output", folder)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.endswith("tests: done\nspeed: done\ntraining: done\n")
    return folder


def result_of(output: Path, part: str) -> Any:
    result = json.loads((output / f"{part}.json").read_text())
    assert result["rehearsal"] is True
    assert result["ended"] is True
    return result


def test_what_comes_back_is_few_files_and_small_ones(output: Path) -> None:
    files = list(output.iterdir())
    assert len(files) <= 8
    assert all(file.stat().st_size < 16 * 2**20 for file in files)


def test_the_tests_are_counted(output: Path) -> None:
    result = result_of(output, "tests")
    assert result["passed"] > 20
    assert (result["failed"], result["left_out"], result["failures"]) == (0, 0, {})


def test_every_row_is_timed(output: Path) -> None:
    for network, table in result_of(output, "speed")["tables"].items():
        for row, time in table["rows"].items():
            assert time == "not rehearsed" if row.endswith(", compiled") else time > 0, row
        assert len(table["rows"]) == (4 if network.endswith("compiled") else 14)


def test_both_methods_are_trained_and_their_files_are_what_was_judged(
    output: Path, tmp_path: Path
) -> None:
    result = result_of(output, "training")
    lfr, other = (result["methods"][name] for name in ("lfr", "adversarial-training"))
    assert other["eps"] == pytest.approx(1.25 * lfr["eps"])
    for name, method in result["methods"].items():
        assert method["steps"] == 2
        assert method["epochs"] > 0
        judged = method["judged"]
        assert judged["images"] == 4
        assert 0 <= judged["PGD-40"] <= judged["clean"] <= 1
        joined = tmp_path / f"{name}.pt"
        printed_by_python(GPU / "gpu_training.py", output, name, joined)
        weights = torch.load(joined, weights_only=True)
        for value in weights.values():
            assert value.dtype in (torch.float32, torch.int64)
            if value.dim() > 1:
                assert torch.equal(value, value.half().float())
        from art_lfr.cli.inputs import load_model

        assert set(load_model("narrow-resnet", joined).state_dict()) == set(weights)


@pytest.fixture
def _its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(GPU), str(ROOT / "benchmarks" / "speed"), *sys.path])


@pytest.mark.usefixtures("_its_modules")
def test_large_weights_are_parted_and_rounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import gpu_training

    monkeypatch.setattr(gpu_training, "FILE_BYTES", 300)
    network = torch.nn.Sequential(torch.nn.Linear(10, 12), torch.nn.Linear(12, 10))
    before = network[0].weight.detach().clone()
    names = gpu_training.save(tmp_path, "lfr", network)
    assert names == ["lfr-0.pt", "lfr-1.pt"]
    weights = gpu_training.join(tmp_path, "lfr")
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert 0 < float((network[0].weight.detach() - before).abs().max()) < 1e-3


@pytest.mark.usefixtures("_its_modules")
def test_a_test_that_fails_is_named(tmp_path: Path) -> None:
    from gpu_part import Job
    from gpu_tests import Recorder

    (tmp_path / "test_it.py").write_text("def test_it(): assert 1 == 2\ndef test_ok(): pass\n")
    job = Job("tests", tmp_path, 1.0, None, False, True)
    pytest.main(
        ["-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)],
        plugins=[Recorder(job)],
    )
    result = json.loads((tmp_path / "tests.json").read_text())
    assert (result["passed"], result["failed"]) == (1, 1)
    ((name, text),) = result["failures"].items()
    assert name.endswith("test_it.py::test_it")
    assert "assert 1 == 2" in text


@pytest.mark.usefixtures("_its_modules")
def test_a_part_without_time_says_so(tmp_path: Path) -> None:
    from gpu_part import Job
    from gpu_speed import run_part

    run_part(Job("speed", tmp_path, 1e-6, None, False, True))
    rows = json.loads((tmp_path / "speed.json").read_text())["tables"]["paper-cnn"]["rows"]
    assert set(rows.values()) == {"no time was left"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("speed", "--minutes", 0), "--minutes is 0; allowed: above 0"),
        (("training",), "--data is None; allowed: the path of a .npz file"),
    ],
)
def test_what_cannot_be_run_is_refused(
    arguments: tuple[object, ...], says: str, tmp_path: Path
) -> None:
    refused = run(*arguments, "--output", tmp_path / "out")
    assert refused.returncode == 2
    assert says in refused.stderr
    assert not (tmp_path / "out").exists()
