"""What makes a run of a comparison the same: each difference is refused, at every stage of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from art_lfr.comparison import judging, runner
from art_lfr.comparison.judging import Split
from art_lfr.comparison.plan import Comparison
from art_lfr.comparison.runner import run_all
from art_lfr.errors import UsageError

Plan = Callable[..., Comparison]
Make = Callable[[str, int, int], nn.Module]


def network(act: nn.Module | None = None, p: float = 0.0, scale: float = 1.0) -> Make:
    """Networks of one name; what a plan does not say is given here."""

    def make(name: str, seed: int, classes: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layer = nn.Linear(64, classes)
        with torch.no_grad():
            layer.weight *= scale
        return nn.Sequential(nn.Flatten(), act or nn.ReLU(), nn.Dropout(p), layer)

    return make


def brighter(split: Split) -> Split:
    return replace(split, x_train=np.clip(split.x_train + 0.01, 0, 1), digest="brighter")


def relabelled(split: Split) -> Split:
    return replace(split, y_train=np.roll(split.y_train, 1), digest="relabelled")


def fewer(split: Split) -> Split:
    half = len(split.x_train) // 2
    return replace(split, x_train=split.x_train[:half], y_train=split.y_train[:half], digest="few")


def reordered(split: Split) -> Split:
    turned = {"x_train": split.x_train[::-1].copy(), "y_train": split.y_train[::-1].copy()}
    return replace(split, **turned, digest="reordered")


def as_it_is(split: Split) -> Split:
    return split


DIFFERENCES: list[tuple[Any, Any, str]] = [
    (brighter, network(), "training images is another|has the digest brighter"),
    (relabelled, network(), "training labels is another|has the digest relabelled"),
    (fewer, network(), r"training images is float32 of shape \[32,|has the digest few"),
    (reordered, network(), "training images is another|has the digest reordered"),
    (as_it_is, network(nn.Tanh()), r"network\.network\.1\.class is '.*Tanh', but the run"),
    (as_it_is, network(nn.LeakyReLU()), r"network\.network\.1\.class is '.*LeakyReLU'"),
    (as_it_is, network(nn.ELU(0.5)), r"network\.network\.1\.class is '.*ELU'"),
    (as_it_is, network(p=0.2), r"network\.network\.2\.p is 0\.2, but the run .* has 0\.0"),
    (as_it_is, network(scale=0.5), r"network\.weights\.network\.3\.weight is another"),
    (
        as_it_is,
        lambda *given: nn.Sequential(network()(*given), nn.Identity()),
        r"network\.network\.\S* is ",
    ),
]


@pytest.mark.parametrize("stage", ["epochs", "weights", "results"])
@pytest.mark.parametrize("kind", ["standard", "pgd", "lfr"])
@pytest.mark.parametrize(("change", "factory", "named"), DIFFERENCES)
def test_a_difference_is_refused_by_its_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_plan: Plan,
    kind: str,
    stage: str,
    change: Callable[[Split], Split],
    factory: Make,
    named: str,
) -> None:
    method = {"name": kind, "kind": kind, **({} if kind == "standard" else {"steps": 1})}
    comparison = tiny_plan(methods=[method], attacks=["PGD-40"])
    [run] = comparison.runs()
    tick = runner.Times.tick

    def stop(times: Any, epoch: int) -> None:
        tick(times, epoch)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stage == "epochs":
            patch.setattr(runner.Times, "tick", stop)
            with pytest.raises(KeyboardInterrupt):
                run_all(comparison, tmp_path, factory=network(), tell=str)
        else:
            run_all(comparison, tmp_path, factory=network(), tell=str)
    if stage == "weights":
        runner.result_path(run, tmp_path).unlink()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "lock" not in path.name]
    before = {path: path.read_bytes() for path in files}
    load = judging.load_split
    monkeypatch.setattr(judging, "load_split", lambda *given: change(load(*given)))
    with pytest.raises(UsageError, match=named):
        run_all(comparison, tmp_path, factory=factory, tell=str)
    assert {path: path.read_bytes() for path in files} == before


def test_finished_runs_without_their_data_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_plan: Plan
) -> None:
    comparison = tiny_plan(methods=[{"name": "standard", "kind": "standard"}])
    run_all(comparison, tmp_path, factory=network(), tell=str)

    def gone(*_: object) -> Split:
        raise FileNotFoundError("the data is gone")

    monkeypatch.setattr(judging, "load_split", gone)
    told: list[str] = []
    run_all(comparison, tmp_path, factory=network(), tell=told.append)
    assert any("unchecked, without data: the data is gone" in line for line in told)
