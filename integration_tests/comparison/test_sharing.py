"""Runs of a comparison shared: by processes beside each other, and with earlier results."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from torch import nn

from art_lfr.cli.app import main
from art_lfr.cli.inputs import load_model
from art_lfr.comparison import runner
from art_lfr.comparison.plan import Comparison
from art_lfr.comparison.results import Results, write_report
from art_lfr.comparison.runner import take_known
from art_lfr.storage.records import read_record, write_record

Plan = Callable[..., Comparison]


@pytest.fixture
def plan(tiny_plan: Plan) -> Plan:
    """Maker of a comparison with two runs."""
    return partial(tiny_plan, epochs=1, seeds=[0, 1])


def run_all(comparison: Comparison, directory: Path) -> list[str]:
    def network(name: str, seed: int, classes: int) -> nn.Module:
        return load_model(name, None, seed, classes)

    lines: list[str] = []
    runner.run_all(comparison, directory, factory=network, tell=lines.append)
    return lines


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path: Path, plan: Plan) -> None:
    comparison = plan()
    first = next(iter(comparison.runs()))
    home = tmp_path / "trainings" / first.training_key
    home.mkdir(parents=True)
    with FileLock(home / "lock"):
        told = run_all(comparison, tmp_path)
    assert told[1] == "1/2 plain, seed 0, split 0: at work in another process"
    assert [run["seed"] for run in Results.read(comparison, tmp_path).runs] == [1]
    assert len(run_all(comparison, tmp_path)) == 2  # what is left, once the other has let go
    assert [run["seed"] for run in Results.read(comparison, tmp_path).runs] == [0, 1]


def test_a_run_finished_meanwhile_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    comparison = plan(seeds=[0])
    answers = iter([False, True])
    monkeypatch.setattr(runner, "_is_done", lambda *_: next(answers))
    assert len(run_all(comparison, tmp_path)) == 1
    assert not list(tmp_path.glob("trainings/*/weights.pt"))


def test_known_results_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    comparison, known = plan(masking_images=30), tmp_path / "known"
    run_all(comparison, tmp_path / "first")
    known.mkdir()
    results = Results.read(comparison, tmp_path / "first")
    write_report(results, known)

    def no_training(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(runner, "train", no_training)
    assert take_known(comparison, known, tmp_path / "second") == 2
    assert take_known(comparison, known, tmp_path / "second") == 0
    assert run_all(comparison, tmp_path / "second") == ["tiny: 2 of 2 runs are done"]
    assert Results.read(comparison, tmp_path / "second").runs == results.runs


@pytest.mark.parametrize(
    "changes", [{"attacks": ["APGD-CE"]}, {"epochs": 2}, {"masking_images": 20}, {"images": [0, 9]}]
)
def test_known_results_of_other_settings_do_not_count(
    tmp_path: Path, changes: dict[str, Any], plan: Plan
) -> None:
    comparison = plan(seeds=[0])
    run_all(comparison, tmp_path)
    write_report(Results.read(comparison, tmp_path), tmp_path)
    assert take_known(plan(**changes), tmp_path, tmp_path / "second") == 0


def test_command_takes_known_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plan: Plan
) -> None:
    comparison, path = plan(seeds=[0]), str(tmp_path / "plan.yaml")
    run_all(comparison, tmp_path)
    write_report(Results.read(comparison, tmp_path), tmp_path)
    command = ["compare", path, "--output", str(tmp_path / "second"), "--known"]
    assert main([*command, str(tmp_path)]) == 0
    assert "1 runs taken from" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "nowhere")]) == 2
    assert "--known is" in capsys.readouterr().err
    for content in ("[{}]", "{", "3", json.dumps([3])):
        (tmp_path / "tiny.json").write_text(content)
        assert main([*command, str(tmp_path)]) == 2
        assert "known file" in capsys.readouterr().err


def test_command_lets_no_other_process_write_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    # Two at once used to take each other's temporary file away.
    path, written = tmp_path / "plan.yaml", list[str]()
    run_all(plan(seeds=[0]), tmp_path)

    def alone(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any) -> Any:
            with pytest.raises(Timeout):
                FileLock(tmp_path / "trainings" / "lock").acquire(blocking=False)
            written.append(name)
            return write(*arguments)

        return checked

    monkeypatch.setattr("art_lfr.comparison.runner.take_known", alone("known", take_known))
    monkeypatch.setattr("art_lfr.comparison.results.write_report", alone("report", write_report))
    command = ["compare", str(path), "--output", str(tmp_path), "--known", str(tmp_path)]
    assert main(command) == 0
    assert written == ["known", "report"]


def test_other_data_under_the_same_name_is_refused(tmp_path: Path, plan: Plan) -> None:
    run_all(plan(seeds=[0]), tmp_path)
    (path,) = (tmp_path / "tiny").glob("*.json")
    result = read_record(path)
    result["data"]["digest"] = "another"
    write_record(path, result)
    with pytest.raises(ValueError, match="the finished run 'plain', seed 0, has another"):
        run_all(plan(), tmp_path)
