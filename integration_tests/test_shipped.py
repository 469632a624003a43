"""The networks of `networks/`: what the files say of them is so."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from lfr_testing import ROOT, printed_by_python

from art_lfr.models import load_network, network_info

NETWORKS = ROOT / "networks"
RESULTS = ROOT / "benchmarks" / "robustness" / "results"
# Of trainings whose network was not kept, run again: a sum in another order, other last bits.
SECOND_RUNS = json.loads((RESULTS.parent / "second_runs.json").read_text())
SHAPES = {
    "digits-cnn": (1, 8, 8),
    "small-cnn": (1, 28, 28),
    "paper-cnn": (1, 28, 28),
    "narrow-resnet": (3, 32, 32),
}


@pytest.mark.parametrize("path", sorted(NETWORKS.iterdir()), ids=lambda path: path.stem)
def test_a_file_says_what_the_tables_say(path):
    info = network_info(path)
    table = path.stem.removesuffix("-at").removesuffix("-warm")
    found = [
        run
        for run in json.loads((RESULTS / f"{table}.json").read_text())
        if (run["method"], run["seed"], run["split"]) == (info.settings["method"], 0, 0)
    ]
    second = [run for run in SECOND_RUNS if run["key"] == found[0]["key"]]
    run = (second or found)[0]
    assert len(found) == 1
    assert run["accuracy"] == info.metrics
    assert run["settings"].items() <= info.settings.items()
    assert (run["eps"], float(run["norm"])) == (info.eps, float(info.norm))
    assert info.input_shape == SHAPES[info.model]
    network = load_network(path)
    assert not network.training
    assert network(torch.rand(2, *info.input_shape)).shape == (2, info.classes)
    assert sum(p.numel() for p in network.parameters()) == run["parameters"]


SHIPPED = ROOT / "benchmarks/robustness/shipped.py"


def test_the_command_that_repeats_the_figures():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = (SHIPPED, "check", "--only", "digits-0.1")
    assert "digits-0.1 worst case: " in printed_by_python(*command, environment=environment)


def test_all_files_are_looked_for_first(tmp_path):
    command = [sys.executable, str(SHIPPED), "check", "--data-dir", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "which lacks cifar10_jpeg.npz, mnist.npz" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
