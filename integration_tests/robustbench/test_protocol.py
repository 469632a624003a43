"""Numbers, printed lines and JSON of `robustbench.benchmark`, for images that a user holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lfr_testing import without_time
from torch import nn

try:
    from art_lfr.robustbench import benchmark
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported: {error}", allow_module_level=True)

import robustbench
from robustbench.model_zoo.enums import BenchmarkDataset

CIFAR = BenchmarkDataset.cifar_10


@pytest.fixture
def loaders(data, monkeypatch):
    """RobustBench finds the images where it would look for a download."""

    def load(count, directory, preprocessing):
        return data[0][:count], data[1][:count]

    monkeypatch.setitem(robustbench.data._clean_dataset_loaders, CIFAR, load)


@pytest.fixture
def both(loaders, short, data, net, tmp_path, monkeypatch, capsys):
    """What RobustBench and `benchmark` return, print, log and write, in a folder each."""

    def run(norm, eps, state=None, **keywords):
        found = []
        for name in ("theirs", "ours"):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            monkeypatch.chdir(folder)
            common = {"batch_size": 5, "model_name": "Mine2026", "log_path": "log.txt"}
            path = None if state is None else Path(state)
            if name == "theirs":
                accuracies = robustbench.benchmark(
                    net().eval(), 16, "cifar10", norm, eps=eps, aa_state_path=path,
                    to_disk=True, **common,
                )  # fmt: skip
            else:
                accuracies = benchmark(
                    net(), *data, eps, norm, state_path=state, to_disk=True, **common, **keywords
                )
            lines = [without_time(line) for line in capsys.readouterr().out.splitlines()]
            log = [without_time(line) for line in (folder / "log.txt").read_text().splitlines()]
            entry = (folder / "model_info" / "cifar10" / norm / "Mine2026.json").read_text()
            found.append((accuracies, lines, log, entry))
        return found

    return run


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.006), ("L2", 0.2)])
def test_agrees_with_robustbench(both, norm, eps):
    theirs, ours = both(norm, eps)
    for name, expected, found in zip(("share", "lines", "log", "JSON"), theirs, ours, strict=True):
        assert found == expected, name
    (clean, robust), lines, _, entry = ours
    assert clean == 13 / 16
    assert robust < clean
    assert lines[0] == "Clean accuracy: 81.25%"
    assert lines[-1] == f"Adversarial accuracy: {robust:.2%}"
    found = json.loads(entry)
    assert (found["eps"], found["clean_acc"]) == (eps, "81.25")
    assert found["autoattack_acc"] == str(round(100 * robust, 2))


def test_a_run_with_a_state(both, tmp_path):
    """RobustBench takes the mean of boolean flags, which torch itself refuses."""
    (expected, _, _, _), _ = both("L2", 0.2)
    for _ in range(2):  # and goes on from the end
        theirs, ours = both("L2", 0.2, state="run.state")
        assert theirs[0] == ours[0] == expected
        assert theirs[1] == ours[1]
    assert sorted(p.name for p in (tmp_path / "ours").glob("run.state*")) == [
        "run.state",
        "run.state.examples",
    ]


def test_an_entry_that_is_there(short, data, net, tmp_path):
    """Other fields stay, and so does eps where it is a fraction of the same value."""
    path = tmp_path / "cifar10" / "Linf" / "Mine.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"name": "A title", "eps": "8/255", "autoattack_acc": "9.9"}))
    keywords = {"to_disk": True, "model_name": "Mine", "directory": tmp_path}
    _, robust = benchmark(net(), *data, 8 / 255, **keywords)
    found = json.loads(path.read_text())
    assert (found["name"], found["eps"]) == ("A title", "8/255")
    assert found["autoattack_acc"] == str(100 * robust)
    benchmark(net(), *data, 4 / 255, np.inf, **keywords)
    assert json.loads(path.read_text())["eps"] == 4 / 255


def test_everything_is_left_as_found(short, data, net, tmp_path, monkeypatch):
    x, y = data
    model = nn.Sequential(net(), nn.Dropout(0.5)).train()
    model[0].eval()
    plain = net()
    weight, before = model[0].layers[0].weight, x.clone()
    weight.grad = gradient = torch.ones_like(weight)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    monkeypatch.chdir(tmp_path)
    found = benchmark(model, x.numpy(), y.numpy(), 0.006, device="cpu")
    # In eval mode, in which dropout does nothing.
    assert found == benchmark(plain, x, y, 0.006)
    assert (model.training, model[0].training, model[1].training) == (True, False, True)
    assert weight.grad is gradient
    assert weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before)
    assert list(tmp_path.iterdir()) == []


def test_the_seed(data, net, capsys, monkeypatch, short):
    seeds = []
    monkeypatch.setattr(short, "get_seed", lambda self: seeds.append(self.seed) or 1)
    benchmark(net(), *data, 0.006, seed=5)
    benchmark(net(), *data, 0.006, seed=None)
    assert set(seeds) == {5, None}


def test_few_classes(short, data, net):
    x = data[0]
    model = net(5)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    clean, robust = benchmark(model, x, y, 0.006)
    assert clean == 1
    assert robust < 1
    with pytest.raises(ValueError, match=r"model has 3 classes; allowed: at least 4.*run_auto"):
        benchmark(net(3), x, 0 * y, 0.006)


X = torch.rand(4, 3, 32, 32)
Y = torch.tensor([0, 3, 9, 1])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": (255 * X).byte()}, ValueError, r"x has dtype torch.uint8.*x.float\(\) / 255"),
        ({"x": 255 * X}, ValueError, r"x has values from .* \[0, 1\] \(divide x by 255\)"),
        ({"x": 2 * X - 1}, ValueError, "mean and standard deviation into the model"),
        ({"x": X.permute(0, 2, 3, 1)}, ValueError, r"looks like \(N, H, W, C\); .*transpose"),
        ({"x": X[:, 0]}, ValueError, r"x has shape \(4, 32, 32\); allowed: images"),
        ({"x": X[:0]}, ValueError, r"x has shape \(0, 3, 32, 32\)"),
        ({"x": X * torch.nan}, ValueError, "x holds NaN"),
        ({"x": "images"}, TypeError, "x is a str"),
        ({"y": Y + 1}, ValueError, "y has labels from 1 to 10; .* begin with 1: use y - 1"),
        ({"y": Y - 1}, ValueError, "y has labels from -1 to 8; allowed: 0 to 9"),
        ({"y": Y[:3]}, ValueError, r"y has shape \(3,\) for 4 samples; allowed: one label"),
        ({"y": nn.functional.one_hot(Y) / 2}, ValueError, r"y has shape \(4, 10\) and the row"),
        ({"y": Y + 0.5}, ValueError, "y has the label .*; allowed: integer labels"),
        ({"eps": 0}, ValueError, "eps is 0"),
        ({"norm": "L1"}, ValueError, "norm is 'L1'; allowed: 'Linf' and 'L2'"),
        ({"norm": "corruptions"}, ValueError, "norm is .*: benchmark_corruptions"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"to_disk": True}, ValueError, "model_name is None; allowed with to_disk"),
        ({"to_disk": True, "model_name": "a/b"}, ValueError, "model_name is 'a/b'"),
        ({"to_disk": True, "model_name": "a", "dataset": ""}, ValueError, "dataset is ''"),
        ({"state_path": "no/such"}, ValueError, "state_path is 'no/such'"),
        ({"model": print}, TypeError, "model is a builtin"),
        ({"model": nn.Identity()}, ValueError, r"model gives \(2, 3, 32, 32\) for 2 samples"),
    ],
)
def test_mistakes_are_told_before_any_attack(net, monkeypatch, change, error, message):
    monkeypatch.setattr("art_lfr.autoattack.suite.perturb", None)
    keywords = {"model": net(), "x": X, "y": Y, "eps": 0.1, **change}
    with pytest.raises(error, match=message):
        benchmark(**keywords)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_a_device_that_is_not_there(net):
    with pytest.raises(ValueError, match="device is 'cuda:0', but torch sees no GPU"):
        benchmark(net(), X, Y, 0.1, device="cuda:0")
