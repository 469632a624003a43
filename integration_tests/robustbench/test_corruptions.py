"""Common corruptions: RobustBench's numbers, lines and files, and what it fails on."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

try:
    from art_lfr.robustbench import benchmark_corruptions
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported: {error}", allow_module_level=True)

import robustbench
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

CIFAR = BenchmarkDataset.cifar_10
NAMES = ("fog", "snow")
KEYS = [(name, severity) for name in NAMES for severity in range(1, 6)]


@pytest.fixture
def corrupted(data):
    """Noise that grows with the severity."""
    generator = torch.Generator().manual_seed(2)
    x, y = data
    noise = torch.randn(x.shape, generator=generator)
    scale = {"fog": 0.05, "snow": 0.1}
    return {key: ((x + scale[key[0]] * key[1] * noise).clamp(0, 1), y) for key in KEYS}


@pytest.fixture
def reference():
    return {key: 0.9 - 0.07 * key[1] - 0.1 * (key[0] == "fog") for key in KEYS}


@pytest.fixture
def table(reference):
    """RobustBench's table of results under each corruption, with AlexNet's row."""

    def write(folder):
        path = folder / "model_info" / "cifar10" / "corruptions" / "unaggregated_results.csv"
        path.parent.mkdir(parents=True)
        pd.DataFrame(reference, index=["AlexNet"]).to_csv(path)
        return path

    return write


def test_agrees_with_robustbench(
    data, net, corrupted, reference, table, tmp_path, monkeypatch, capsys
):
    x, y = data

    def load(count, severity, directory, shuffle, corruptions, prepr):
        return corrupted[corruptions[0], severity]

    source = robustbench.data
    monkeypatch.setitem(source._clean_dataset_loaders, CIFAR, lambda *_: data)
    monkeypatch.setitem(source.CORRUPTION_DATASET_LOADERS[CIFAR], ThreatModel.corruptions, load)
    monkeypatch.setitem(source.CORRUPTIONS_DICT[CIFAR], ThreatModel.corruptions, NAMES)
    found = []
    for name in ("theirs", "ours"):
        folder = tmp_path / name
        folder.mkdir()
        path = table(folder)
        monkeypatch.chdir(folder)
        if name == "theirs":
            shares = robustbench.benchmark(
                net().eval(), 16, "cifar10", "corruptions", to_disk=True, model_name="Mine"
            )
        else:
            result = benchmark_corruptions(net(), x, y, corrupted, to_disk=True, model_name="Mine")
            shares = result[:2]
        entry = (path.parent / "Mine.json").read_text()
        found.append((shares, capsys.readouterr().out, entry, path.read_text()))
    assert found[0] == found[1]
    assert json.loads(entry)["corruptions_mce"] == str(round(100 * result[2], 2))
    explicit = benchmark_corruptions(net(), x, y, corrupted, reference=reference)
    assert explicit == result
    errors = [
        np.mean([1 - found_by_hand(net, corrupted[n, s]) for s in range(1, 6)])
        / np.mean([1 - reference[n, s] for s in range(1, 6)])
        for n in NAMES
    ]
    assert result.mean_corruption_error == pytest.approx(np.mean(errors))


def found_by_hand(net, pair):
    with torch.no_grad():
        return float((net()(pair[0]).argmax(dim=1) == pair[1]).double().mean())


def test_without_a_reference(data, net, corrupted, tmp_path, monkeypatch):
    """RobustBench itself fails here: AlexNet's row is not in its wheel."""
    monkeypatch.chdir(tmp_path)
    some = {key: corrupted[key] for key in KEYS[:3]}
    found = benchmark_corruptions(net(), *data, some)
    assert found.mean_corruption_error is None
    assert found.clean == 13 / 16
    assert found.accuracy == pytest.approx(np.mean([found_by_hand(net, p) for p in some.values()]))
    assert list(tmp_path.iterdir()) == []
    benchmark_corruptions(net(), *data, some, to_disk=True, model_name="Mine")
    entry = json.loads((tmp_path / "model_info/cifar10/corruptions/Mine.json").read_text())
    assert entry["corruptions_acc"] == str(round(100 * found.accuracy, 2))
    assert entry["corruptions_mce"] is None


def test_images_are_read_when_asked(data, net, corrupted):
    """A mapping may keep one corruption at a time in memory."""
    asked = []

    class Lazy(dict):
        def __getitem__(self, key):
            asked.append(key)
            return corrupted[key]

    benchmark_corruptions(net(), *data, Lazy.fromkeys(KEYS))
    assert asked == KEYS


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"corrupted": {}}, ValueError, "corrupted is empty"),
        ({"corrupted": [1]}, TypeError, "corrupted is a list"),
        ({"corrupted": {"fog": 1}}, ValueError, "corrupted has the key 'fog'; allowed"),
        ({"corrupted": {("fog", 0): 1}}, ValueError, "severity in corrupted"),
        ({"reference": {("fog", 1): 0.5}}, ValueError, r"reference has no accuracy for .'fog', 2"),
        ({"to_disk": True}, ValueError, "model_name is None"),
    ],
)
def test_bad_arguments(data, net, corrupted, change, error, message):
    x, y = data
    keywords = {"model": net(), "x": x, "y": y, "corrupted": corrupted, **change}
    with pytest.raises(error, match=message):
        benchmark_corruptions(**keywords)


def test_bad_images_of_one_corruption(data, net, corrupted):
    corrupted["snow", 1] = (255 * data[0], data[1])
    with pytest.raises(ValueError, match=r"corrupted\[\('snow', 1\)\]: x has values .* 255"):
        benchmark_corruptions(net(), *data, corrupted)
