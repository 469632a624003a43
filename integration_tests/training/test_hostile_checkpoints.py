"""Checkpoints that load as tensors and numbers, and hold something else than a run ever wrote.

Each is refused before the weights, the optimizer, the scheduler or the trainer change.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.errors import UsageError
from art_lfr.storage.identity import seal

Content = dict[str, Any]


def make_run(data: Any, seed: int = 0) -> tuple[Any, Any, Any]:
    """A trainer whose checkpoint has all that one can have."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Linear(12, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    classifier = PyTorchClassifier(
        net, nn.CrossEntropyLoss(), (1, 8, 8), 10, optimizer=optimizer, clip_values=(0.0, 1.0)
    )
    keywords = {"ema_decay": 0.9, "best_metric": "validation_loss", "warm_start": True}
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, eps=0.1, max_iter=1, verbose=False, warmup_epochs=0, **keywords
    )
    return trainer, net, torch.optim.lr_scheduler.StepLR(optimizer, 1)


def fit(run: tuple[Any, Any, Any], data: Any, directory: Path, epochs: int) -> None:
    trainer, _, scheduler = run
    trainer.fit(
        data.x[:64],
        data.y[:64],
        validation_data=(data.x[64:96], data.y[64:96]),
        batch_size=32,
        nb_epochs=epochs,
        scheduler=scheduler,
        checkpoint_dir=directory,
        resume=True,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, data: Any) -> Path:
    directory = tmp_path_factory.mktemp("run")
    fit(make_run(data), data, directory, 2)
    return directory


def put(*path: Any, value: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    change.__name__ = "-".join(map(str, path))
    return change


def drop(*path: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    change.__name__ = "without-" + "-".join(map(str, path))
    return change


NAN = float("nan")
WEIGHT = "1.weight"
HOSTILE = [
    drop("identity"),
    put("identity", value=[]),
    drop("identity", "constants"),
    put("run_id", value=7),
    put("position", value=[-1, 0]),
    put("position", value=[2, 3]),
    put("position", value="2"),
    put("position", value=[2.5, 0]),
    put("stopped", value="no"),
    put("collapse_reported", value=None),
    put("history", value=[]),
    put("history", 0, value="epoch"),
    put("history", 1, "epoch", value=7),
    put("history", 1, "loss", value="small"),
    drop("network"),
    put("network", value=torch.ones(3)),
    drop("network", WEIGHT),
    put("network", "more", value=torch.ones(3)),
    put("network", WEIGHT, value=torch.ones(12, 63)),
    put("network", WEIGHT, value=torch.ones(12, 64, dtype=torch.float64)),
    put("network", WEIGHT, value=torch.full((12, 64), NAN)),
    put("network", "2.running_mean", value=torch.ones(2)),
    put("optimizer", value=None),
    drop("optimizer", "param_groups"),
    put("optimizer", "param_groups", value=[]),
    put("optimizer", "param_groups", 0, "lr", value=NAN),
    put("optimizer", "param_groups", 0, "betas", value=0.9),
    put("optimizer", "param_groups", 0, "params", value=[0, 1]),
    put("optimizer", "state", 99, value={}),
    put("optimizer", "state", 0, "exp_avg", value=torch.ones(3)),
    put("optimizer", "state", 0, "exp_avg", value=torch.full((12, 64), NAN)),
    drop("optimizer", "state", 0, "exp_avg"),
    put("optimizer", "state", 0, "exp_avg", value="none"),
    put("optimizer", "state", 0, "step", value=torch.tensor(-5.0)),
    put("scheduler", "gamma", value=0.5),
    put("scheduler", "step_size", value=0),
    put("scheduler", value=None),
    put("scheduler", value={"last_epoch": "two"}),
    put("scheduler", "last_epoch", value=NAN),
    put("average", value=[0.9]),
    put("average", 0, value=2.0),
    put("average", 2, WEIGHT, value=torch.ones(1)),
    put("best", value={"epoch": 1}),
    put("best", "epoch", value=50),
    put("best", "score", value="high"),
    put("best", "state", WEIGHT, value=torch.full((12, 64), NAN)),
    put("ends", value=torch.ones(3, 1, 8, 8)),
    put("ends", value="points"),
    put("random", value={}),
    put("random", "torch_cpu", value=torch.ones(3, dtype=torch.uint8)),
    put("random", "torch_cpu", value="junk"),
    put("random", "numpy", value=["MT19937", torch.ones(5), 0, 0, 0.0]),
    put("random", "python", value=[3, [1, 2], None]),
    put("generator", value=torch.zeros(16, dtype=torch.uint8)),
    put("generator", value=None),
]


def test_enough_is_tried() -> None:
    assert len(HOSTILE) >= 30


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_a_wrong_content_changes_nothing(
    checkpoint: Path, data: Any, tmp_path: Path, change: Callable[[Content], None]
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(checkpoint, directory)
    content = torch.load(directory / "last.pt", weights_only=True)
    change(content)
    content["sha256"] = seal(content)  # as one would who knows how
    torch.save(content, directory / "last.pt")
    written = (directory / "last.pt").read_bytes()
    run = make_run(data, seed=1)
    trainer, net, scheduler = run
    before = copy.deepcopy(
        (net.state_dict(), scheduler.optimizer.state_dict(), scheduler.state_dict())
    )
    random = torch.get_rng_state()
    with pytest.raises(UsageError, match=r"last\.pt is damaged \(|checkpoint_dir"):
        fit(run, data, directory, 3)
    after = net.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before[0].items())
    assert scheduler.optimizer.state_dict() == before[1]
    assert scheduler.state_dict() == before[2]
    assert trainer.history == []
    assert torch.equal(torch.get_rng_state(), random)
    assert (directory / "last.pt").read_bytes() == written


def test_any_other_change_is_one(checkpoint: Path, data: Any, tmp_path: Path) -> None:
    """Its values could be those of a run: that they are not of this one, the seal says."""
    directory = tmp_path / "run"
    shutil.copytree(checkpoint, directory)
    content = torch.load(directory / "last.pt", weights_only=True)
    content["optimizer"]["param_groups"][0]["lr"] = 0.5
    torch.save(content, directory / "last.pt")
    with pytest.raises(UsageError, match=r"is damaged \(it is not what the run wrote\)"):
        fit(make_run(data), data, directory, 3)


def test_a_sound_one_goes_on(checkpoint: Path, data: Any, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(checkpoint, directory)
    content = torch.load(directory / "last.pt", weights_only=True)
    torch.save(content, directory / "last.pt")
    run = make_run(data, seed=1)
    fit(run, data, directory, 3)
    whole = make_run(data)
    fit(whole, data, tmp_path / "whole", 3)
    state = whole[1].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in run[1].state_dict().items())
