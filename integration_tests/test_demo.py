"""The demonstration, through the installed command."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from art_lfr.data import digits
from art_lfr.demo.run import run_demo
from art_lfr.models import load_network, network_info

ATTACKS = ["clean", "PGD-40", "APGD-T", "Square", "worst case"]
NAMES = ["standard", "adversarial training", "LFR"]
NETWORKS = [f"{name.lower().replace(' ', '-')}.safetensors" for name in NAMES]


def run_command(folder, *options):
    command = Path(sys.executable).with_name("art-lfr")
    result = subprocess.run(
        [command, "demo", "--output", str(folder), *options], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    for word in (*NAMES, *ATTACKS, "mean flatness", "Drawing figures", "Report:"):
        assert word in result.stdout
    table = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert len(table) == 7
    assert max(map(len, table)) <= 80
    return json.loads((folder / "results.json").read_text())


def test_short_demo_writes_its_report(tmp_path):
    results = run_command(tmp_path / "report", "--epochs", "1")
    names = {path.name for path in (tmp_path / "report").iterdir()}
    figures = {
        f"{name}.png"
        for name in (
            "training_curves",
            "flatness_and_vulnerability",
            "loss_surface",
            "input_gradients",
        )
    }
    assert names == {"report.md", "results.json", *NETWORKS, *figures}
    for name in figures:
        image = (tmp_path / "report" / name).read_bytes()
        assert image.startswith(b"\x89PNG")
        assert len(image) > 5000
    report = (tmp_path / "report" / "report.md").read_text()
    assert all(f"]({name})" in report for name in figures)
    for name, file in zip(NAMES, NETWORKS, strict=True):
        evaluation = results["evaluations"][name]
        assert [row["name"] for row in evaluation["rows"]] == ATTACKS
        assert all(row["images"] == 450 for row in evaluation["rows"])
        assert len(evaluation["per_sample"]["flatness"]) == 450
        assert [record["epoch"] for record in results["histories"][name]] == [1]
        # The network that was attacked is the one that is kept.
        kept, data = tmp_path / "report" / file, digits()
        right = load_network(kept)(torch.tensor(data.x_test)).argmax(1).numpy() == data.y_test
        assert right.tolist() == evaluation["per_sample"]["correct"]["clean"]
        info = network_info(kept)
        assert (info.model, info.data) == ("digits-cnn", "digits")
        assert info.eps == (None if name == "standard" else 0.1)


def test_without_matplotlib_there_are_no_figures(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shown = io.StringIO()
    evaluations = run_demo(tmp_path, epochs=1, console=Console(file=shown, width=80))
    assert 'pip install "art-lfr[plots]"' in shown.getvalue()
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "results.json", *NETWORKS}
    assert list(evaluations) == NAMES


@pytest.mark.slow
def test_full_demo_meets_its_targets(tmp_path):
    evaluations = run_command(tmp_path)["evaluations"]
    accuracy = {
        name: {row["name"]: row["accuracy"] for row in evaluation["rows"]}
        for name, evaluation in evaluations.items()
    }
    assert accuracy["LFR"]["worst case"] >= 0.88
    assert accuracy["LFR"]["clean"] >= 0.975
    assert accuracy["standard"]["worst case"] <= 0.60
    assert accuracy["standard"]["clean"] >= 0.96
    flatness = {name: e["flatness"]["mean"] for name, e in evaluations.items()}
    assert flatness["LFR"] < flatness["standard"] / 5
