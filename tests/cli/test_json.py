"""`--json`: one JSON value on standard output and nothing else there, the same exit status."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from art_lfr.cli import main
from art_lfr.models import digits_cnn

PLAN = {
    "name": "mine",
    "data": "digits",
    "model": "digits-cnn",
    "eps": 0.1,
    "epochs": 1,
    "batch_size": 512,
    "images": [0, 8],
    "attacks": ["PGD-40"],
    "methods": [{"name": "standard", "kind": "standard"}, {"name": "LFR", "kind": "lfr"}],
}
TUNE = "--epochs 1 --batch-size 512 --train 512 --held-out 20 --max-iter 1 --minutes 0.01"


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Runner of a command with --json: its exit status and what it printed, as plain values."""
    monkeypatch.chdir(tmp_path)
    torch.save(digits_cnn().state_dict(), "a.pt")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))

    def run(line):
        status = main([*line.split(), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_flatness(printed):
    status, found = printed("flatness --weights a.pt --steps 1 --output values.json")
    assert (status, found["samples"], found["eps"]) == (0, 450, 0.1)
    assert 0 < found["median"] < found["percentile_95"]


def test_check(printed):
    status, found = printed("check --weights a.pt --batch-size 8")
    assert status == 0
    assert all(finding["severity"] == "warning" for finding in found)


def test_masking(printed, tmp_path):
    train = (
        "train --eps 0.1 --max-iter 1 --epochs 8 --lr 0.05 --batch-size 64 --output a.pt --force"
    )
    status, history = printed(train)
    assert (status, [record["epoch"] for record in history]) == (0, list(range(1, 9)))
    status, found = printed("masking --weights a.pt --images 40 --output report.json")
    assert found["weights"] == "a.pt"
    assert 20 <= found["correct"] <= found["images"] == 40
    assert status == int(found["masked"])
    assert found == json.loads((tmp_path / "report.json").read_text())


def test_masking_of_too_few_images(printed):
    status, found = printed("masking --weights a.pt --images 10")
    assert status == 2
    assert found["judged"] is False
    assert {check["verdict"] for check in found["checks"]} == {"not run"}


def test_tune(printed, tmp_path):
    status, found = printed(f"tune --data digits {TUNE} --output tuning.json")
    assert status == 0
    assert found["proposal"]["lam"] == pytest.approx(0.1)  # the row of digits
    assert found == json.loads((tmp_path / "tuning.json").read_text())


def test_compare(printed):
    status, found = printed("compare plan.yaml --output results")
    assert status == 0
    assert [row["method"] for row in found["mine"]] == ["standard", "LFR"]
    assert 0 <= float(found["mine"][1]["worst case"]) <= 100
