"""Training by two processes on the CPU, started by `accelerate launch`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from lfr_testing import launcher, run_python

from art_lfr.core.processes import Processes

pytest.importorskip("accelerate", reason="accelerate is not installed")
SCRIPTS = Path(__file__).with_name("scripts")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def launch(
    size: int, *arguments: object, script: Path = SCRIPTS / "train_in_a_process.py"
) -> subprocess.CompletedProcess[str]:
    start = launcher(size) if size > 1 else []
    return run_python(*start, script, *arguments, environment=ENVIRONMENT, timeout=300)


def trained(size: int, directory: Path, *arguments: object) -> list[dict[str, Any]]:
    """What each process ends with."""
    output = directory / f"{size}-{'-'.join(map(str, arguments)).replace('/', '_')}"[:100]
    finished = launch(size, output, *arguments)
    assert finished.returncode == 0, finished.stderr
    return [
        torch.load(output.with_suffix(f".{rank}of{size}"), weights_only=True)
        for rank in range(size)
    ]


def farthest(a: dict[str, Any], b: dict[str, Any]) -> float:
    return max(float((v - b["weights"][k]).abs().max()) for k, v in a["weights"].items())


@pytest.mark.parametrize("source", ["fit", "loader"])
def test_two_processes_end_with_the_weights_of_one(tmp_path: Path, source: str) -> None:
    (one,) = trained(1, tmp_path, 2, source)
    first, second = trained(2, tmp_path, 2, source)
    # 20 iterations in float64, without layers that couple samples.
    assert farthest(one, first) < 1e-5
    assert farthest(first, second) == 0
    for name in ("loss", "flatness", "train_accuracy", "validation_accuracy", "validation_loss"):
        values = [result["history"][-1][name] for result in (one, first, second)]
        assert values == pytest.approx([values[0]] * 3, abs=1e-9), name


def test_parts_perturbed_weights_warm_starts_and_a_last_batch_smaller_than_the_processes(
    tmp_path: Path,
) -> None:
    # 66 samples on three processes: of a last batch of two, one has none.
    arguments = (3, "fit", "--count", 66, "--largest", 16, "--perturb", "--warm")
    (one,) = trained(1, tmp_path, *arguments)
    found = trained(3, tmp_path, *arguments)
    assert max(farthest(one, other) for other in found) < 1e-5


def test_warm_starts_of_moved_images_from_a_loader_that_gives_indices(tmp_path: Path) -> None:
    arguments = (3, "loader", "--count", 66, "--warm", "--moved")
    (one,) = trained(1, tmp_path, *arguments)
    first, second = trained(2, tmp_path, *arguments)
    assert farthest(first, second) == 0
    assert farthest(one, first) < 1e-5


def test_two_processes_with_warm_starts_end_the_same_after_a_failure(tmp_path: Path) -> None:
    arguments = (3, "fit", "--warm", "--moved", "--count", 200)
    whole, _ = trained(2, tmp_path, *arguments)
    directory = tmp_path / "run"
    failed = launch(2, tmp_path / "x", *arguments, "--directory", directory, "--fail")
    assert failed.returncode != 0
    resumed, other = trained(2, tmp_path, *arguments, "--directory", directory)
    assert len(resumed["history"]) == 3
    assert farthest(whole, resumed) == farthest(resumed, other) == 0


def test_averaged_and_best_weights_and_attacked_samples(tmp_path: Path) -> None:
    # 131 samples: parts of 33 and 32, and a last batch of three, of which one process has none.
    arguments = (3, "fit", "--count", 131, "--more")
    (one,) = trained(1, tmp_path, *arguments)
    first, second = trained(2, tmp_path, *arguments)
    assert farthest(first, second) == 0
    assert farthest(one, first) < 1e-4  # in float32


def test_running_statistics_are_the_same_everywhere(tmp_path: Path) -> None:
    first, second = trained(2, tmp_path, 1, "fit", "--norm-layers")
    assert farthest(first, second) == 0
    assert float(first["weights"]["2.running_mean"].abs().max()) > 0


def test_the_last_checkpoint_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    whole, _ = trained(2, tmp_path, 3, "fit")
    directory = tmp_path / "run"
    failed = launch(2, tmp_path / "x", 3, "fit", "--directory", directory, "--fail")
    assert failed.returncode != 0
    assert "this process fails" in failed.stderr
    assert sorted(path.name for path in directory.iterdir()) == [".lock", "last.pt"]
    (resumed,) = trained(1, tmp_path, 3, "fit", "--directory", directory)
    assert len(resumed["history"]) == 3
    assert farthest(whole, resumed) < 1e-5


def test_a_loss_that_is_not_finite_in_one_process_ends_all(tmp_path: Path) -> None:
    failed = launch(2, tmp_path / "x", 1, "fit", "--nan", 1)
    assert failed.returncode != 0
    assert "in one of the processes" in failed.stderr
    assert "given back its last good weights" in failed.stderr


def test_a_process_that_fails_ends_the_others(tmp_path: Path) -> None:
    failed = launch(2, tmp_path / "x", 9, "fit", "--fail-late", 1)
    assert failed.returncode != 0
    assert "a process that is not the main one fails" in failed.stderr


def test_their_threads_end_before_the_interpreter() -> None:
    # Otherwise such short runs often end with status 134: "terminate called".
    ended = launch(2, script=SCRIPTS / "threads_at_exit.py")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("group: 0") == 2


def test_other_data_in_one_process_is_refused_in_all(tmp_path: Path) -> None:
    failed = launch(2, tmp_path / "x", 1, "fit", "--different")
    assert failed.returncode != 0
    assert failed.stderr.count("UsageError: data, settings or length of an epoch differs") == 2


def test_processes_that_accelerate_takes_for_unrelated_ones_are_refused() -> None:
    alone = {**ENVIRONMENT, "WORLD_SIZE": "2", "RANK": "0", "CUDA_VISIBLE_DEVICES": ""}
    found = run_python(SCRIPTS / "unrelated_processes.py", environment=alone)
    assert found.returncode == 1
    assert "PartialState has 1 of 2 processes; allowed: all" in found.stderr


def test_the_command_in_two_processes(tmp_path: Path) -> None:
    pytest.importorskip("typer", reason="the commands are not installed")

    def command(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        start = launcher(size) if size > 1 else []
        quick = ["--epochs", "1", "--max-iter", "1", "--batch-size", "256"]
        return run_python(
            *start,
            *("-m", "art_lfr", "train", *quick, *arguments),
            folder=tmp_path,
            environment=ENVIRONMENT,
        )

    one, two = command(1, "--output", "1.pt"), command(2, "--output", "2.pt")
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    weights = [torch.load(tmp_path / name, weights_only=True) for name in ("1.pt", "2.pt")]
    assert all(torch.allclose(v, weights[1][k], atol=1e-4) for k, v in weights[0].items())
    assert two.stdout.count("Weights:") == 1


def test_what_is_not_tested_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Processes().rank, Processes().size) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="accelerate is set to FSDP, which shards the weights"):
        Processes()


def test_what_is_not_made_for_several_is_refused() -> None:
    several = Processes()
    several.size = 2
    with pytest.raises(ValueError, match="art-lfr compare runs in 2 processes of a launcher"):
        several.check_alone("art-lfr compare")
    with pytest.raises(ValueError, match="classifier is on meta in process 0 of 2; allowed: cpu"):
        several.check_device(torch.device("meta"))


def test_a_world_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "all")
    with pytest.raises(ValueError, match="WORLD_SIZE is 'all'"):
        Processes()
