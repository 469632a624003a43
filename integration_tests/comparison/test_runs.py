"""A comparison from its plan to its tables: every kind trains, and a killed one goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr.cli.app import main
from art_lfr.comparison import judging, runner
from art_lfr.comparison.judging import Split, load_split
from art_lfr.comparison.plan import KINDS, Comparison
from art_lfr.comparison.results import Results, table
from art_lfr.comparison.runner import run_all, run_one

METHODS: dict[str, dict[str, Any]] = {kind: {"name": kind, "kind": kind} for kind in sorted(KINDS)}
for _name in ("pgd", "trades", "awp", "lfr"):
    METHODS[_name]["steps"] = 2
METHODS["trades"]["warmup"] = 2.5  # epochs: a killed run goes on within the warm-up
Plan = Callable[..., Comparison]
Factory = Callable[[str, int, int], nn.Module]


def results(directory: Path) -> dict[str, Any]:
    found = [json.loads(path.read_text()) for path in (directory / "tiny").glob("*.json")]
    return {run["method"]: run for run in found}


def trained(directory: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        path.parent.name: torch.load(path, weights_only=True)
        for path in directory.glob("trainings/*/weights.pt")
    }


def test_every_kind_trains_and_is_judged_once(
    tmp_path: Path, tiny_plan: Plan, make_network: Factory
) -> None:
    comparison = tiny_plan(methods=list(METHODS.values()))
    lines: list[str] = []
    run_all(comparison, tmp_path, factory=make_network, tell=lines.append)
    found = results(tmp_path)
    assert set(found) == set(KINDS)
    for run in found.values():
        assert run["times"][-1]["epoch"] == 2
        assert run["times"][-1]["cpu_seconds"] > 0
        assert set(run["accuracy"]) == {"clean", "PGD-40", "worst case"}
        assert run["data"]["train"] == 64
        assert run["judged"] == {"part": "validation", "images": [0, 30]}
    # All start from the same weights and none ends where another does.
    ends = [torch.cat([v.flatten() for v in w.values()]) for w in trained(tmp_path).values()]
    assert len(ends) == len(KINDS)
    assert all(not torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])
    run_all(comparison, tmp_path, factory=make_network, tell=lines.append)
    assert lines[-1] == f"tiny: {len(KINDS)} of {len(KINDS)} runs are done"


@pytest.mark.parametrize("kind", ["pgd", "trades", "awp", "standard", "lfr"])
@pytest.mark.parametrize("flip", [False, True])
def test_killed_training_goes_on_to_the_same_weights(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    flip: bool,
    tiny_plan: Plan,
    make_network: Factory,
) -> None:
    comparison = tiny_plan(methods=[METHODS[kind]], flip=flip, epochs=3)
    run = next(iter(comparison.runs()))
    split = load_split(comparison, 0)
    run_one(run, split, tmp_path / "whole", make_network)

    ticks = 0
    tick = runner.Times.tick

    def killed(self: runner.Times, epoch: int) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 2:
            raise KeyboardInterrupt
        tick(self, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(runner.Times, "tick", killed)
        with pytest.raises(KeyboardInterrupt):
            run_one(run, split, tmp_path / "killed", make_network)
    assert not (tmp_path / "killed/trainings" / run.training_key / "weights.pt").exists()
    result = run_one(run, split, tmp_path / "killed", make_network)
    assert [t["epoch"] for t in result["times"]] == [1, 2, 3]
    whole, resumed = (trained(tmp_path / name)[run.training_key] for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_another_judgement_trains_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_plan: Plan, make_network: Factory
) -> None:
    methods = [METHODS["standard"]]
    run_all(tiny_plan(methods=methods), tmp_path, factory=make_network, tell=str)

    def no_training(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("art_lfr.comparison.runner.train", no_training)
    run_all(tiny_plan(methods=methods, images=[0, 20]), tmp_path, factory=make_network, tell=str)
    found = [json.loads(path.read_text()) for path in (tmp_path / "tiny").glob("*.json")]
    assert sorted(run["judged"]["images"][1] for run in found) == [20, 30]

    # A method that the plan calls by another name is not trained again either.
    renamed = tiny_plan(methods=[{**methods[0], "name": "plain"}])
    run_all(renamed, tmp_path, factory=make_network, tell=str)
    assert [run["method"] for run in Results.read(renamed, tmp_path).runs] == ["plain"]

    # The masking report is added to the first result, whose attacks are not run again.
    monkeypatch.setattr("art_lfr.comparison.judging.evaluate", no_training)
    masked = tiny_plan(methods=methods, masking_images=30)
    run_all(masked, tmp_path, factory=make_network, tell=str)
    (result,) = Results.read(masked, tmp_path).runs
    assert "clean" in result["accuracy"]
    assert result["masking"]


def test_a_training_that_diverges_is_a_result_and_the_others_go_on(
    tmp_path: Path, tiny_plan: Plan, make_network: Factory
) -> None:
    methods = [{**METHODS["lfr"], "name": "far", "lr": 1e12}, METHODS["standard"]]
    told: list[str] = []
    comparison = tiny_plan(methods=methods)
    run_all(comparison, tmp_path, factory=make_network, tell=told.append)
    assert "training stopped: the" in told[1]
    assert "stopped" not in told[2]
    found = results(tmp_path)
    assert "finite" in found["far"]["stopped"] or "inf" in found["far"]["stopped"]
    assert all(w.isfinite().all() for net in trained(tmp_path).values() for w in net.values())
    rows = table(Results.read(comparison, tmp_path)).set_index("method")
    assert list(rows["runs"]) == ["1 (1 stopped)", "1"]
    assert list(rows["epochs"]) == [2, 2]


def test_snapshots_are_judged_once_and_leave_the_last_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_plan: Plan, make_network: Factory
) -> None:
    judged: list[str] = []
    reported: list[str] = []

    def first_weight(classifier: PyTorchClassifier) -> str:
        return str(next(iter(classifier.model.parameters())).sum().item())

    def judge(classifier: PyTorchClassifier, split: Split, c: Comparison) -> Any:
        judged.append(first_weight(classifier))
        return actual_judge(classifier, split, c)

    def masking(classifier: PyTorchClassifier, split: Split, c: Comparison) -> dict[str, Any]:
        reported.append(first_weight(classifier))
        return {}

    actual_judge = judging.judge
    monkeypatch.setattr(judging, "judge", judge)
    monkeypatch.setattr(judging, "verdicts", masking)
    changes = {"epochs": 3, "snapshots": 1, "masking_images": 4}
    comparison = tiny_plan(methods=[METHODS["pgd"]], **changes)
    run_all(comparison, tmp_path, factory=make_network, tell=str)
    [run] = comparison.runs()
    found = runner.read_result(run, tmp_path)
    assert [s["epoch"] for s in found["snapshots"]] == [1, 2, 3]
    assert found["snapshots"][2]["accuracy"] == found["accuracy"]
    # The final weights and those of epochs 1 and 2: three judgements of different weights.
    assert len(judged) == len(set(judged)) == 3
    assert reported == judged[:1]
    # The weights that a stopped training gives back may be others than its last epoch's.
    (tmp_path / "trainings" / run.training_key / runner.STOPPED).write_text("it diverged\n")
    runner.result_path(run, tmp_path).unlink()
    run_all(comparison, tmp_path, factory=make_network, tell=str)
    assert judged[3:] == [judged[0], judged[1], judged[2], judged[0]]


def test_command_writes_tables_and_snapshots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_plan: Plan
) -> None:
    path = tmp_path / "plan.yaml"
    methods = [METHODS["pgd"], METHODS["lfr"]]
    tiny_plan(methods=methods, snapshots=1)
    output = tmp_path / "out"
    assert main(["compare", str(path), "--output", str(output)]) == 0
    printed = capsys.readouterr()
    assert "against AT" in printed.out
    assert "2 of 2 runs" in printed.out
    assert "1/2 pgd, seed 0, split 0: clean" in printed.err
    assert printed.err.count(" for 1 more") == 1  # nothing is left after the last
    assert "about 0 min" not in printed.err
    assert max(map(len, printed.err.splitlines())) <= 80
    files = " ".join(printed.out.rpartition("Files: ")[2].split())
    assert all(str(output / f"tiny{ending}") in files for ending in (".json", ".md", ".tex"))
    runs = json.loads((output / "tiny.json").read_text())
    assert [s["epoch"] for s in runs[0]["snapshots"]] == [1, 2]
    assert runs[0]["snapshots"][1]["accuracy"] == runs[0]["accuracy"]
    markdown = (output / "tiny.md").read_text()
    assert markdown.startswith("**tiny: ")
    assert "| pgd " in markdown
    assert (output / "tiny.tex").exists()
    assert main(["compare", str(path), "--names", "other"]) == 2
    assert "--names is 'other'" in capsys.readouterr().err
    assert main(["compare", str(path), "--output", str(tmp_path / "x"), "--tables"]) == 0
    assert "no finished run" in capsys.readouterr().err
