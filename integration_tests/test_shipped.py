"""The networks of `networks/`: what the index says of them is so, and damage is noticed."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from lfr_testing import ROOT, printed_by_python

from art_lfr.models import load_network
from art_lfr.models.networks import entries

NETWORKS = ROOT / "networks"
RESULTS = ROOT / "benchmarks" / "robustness" / "results"
SHAPES = {
    "digits-cnn": (1, 8, 8),
    "small-cnn": (1, 28, 28),
    "paper-cnn": (1, 28, 28),
    "narrow-resnet": (3, 32, 32),
}


@pytest.mark.parametrize("name", entries(NETWORKS))
def test_the_index_says_what_the_tables_say(name):
    entry = entries(NETWORKS)[name]
    (run,) = (
        run
        for run in json.loads((RESULTS / f"{name}.json").read_text())
        if (run["method"], run["seed"], run["split"]) == (entry["method"], 0, 0)
    )
    assert run["accuracy"] == entry["accuracy"]
    assert run["settings"] == entry["settings"]
    network = load_network(NETWORKS / entry["file"])
    assert not network.training
    assert network(torch.rand(2, *SHAPES[entry["model"]])).shape == (2, entry["classes"])
    assert sum(p.numel() for p in network.parameters()) == run["parameters"]


def test_the_command_that_repeats_the_figures():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = (ROOT / "benchmarks/robustness/shipped.py", "check", "--only", "digits-0.1")
    assert "digits-0.1 worst case: " in printed_by_python(*command, environment=environment)


def test_what_is_no_shipped_network(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        load_network(tmp_path / "absent.pt")
    shutil.copy(NETWORKS / "digits-0.1.pt", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no index\.json"):
        load_network(tmp_path / "digits-0.1.pt")
    shutil.copy(NETWORKS / "index.json", tmp_path)
    load_network(str(tmp_path / "digits-0.1.pt"))
    shutil.copy(NETWORKS / "digits-0.2.pt", tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"does not have; allowed: one of digits-0\.1\.pt"):
        load_network(tmp_path / "other.pt")
    shutil.copy(NETWORKS / "digits-0.2.pt", tmp_path / "digits-0.1.pt")  # swapped
    with pytest.raises(ValueError, match="check sum"):
        load_network(tmp_path / "digits-0.1.pt")
    index = tmp_path / "index.json"
    index.write_text(index.read_text().replace('"classes": 10', '"classes": 11', 1))
    with pytest.raises(ValueError, match="check sum"):
        load_network(tmp_path / "digits-0.1.pt")
