"""The report of the demonstration: its text, its numbers, its figures."""

import json

import pytest
import torch
from torch import nn

from art_lfr import evaluate
from art_lfr.demo.run import comparison, write_report
from art_lfr.plots.drawing import training_curves

EPS = 0.1


@pytest.fixture
def models():
    return {name: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)) for name in ("first", "second")}


def test_report(models, tmp_path):
    x, y = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    evaluations = {
        name: evaluate(model, x, y, eps=EPS, attacks=["PGD-40"], flatness_steps=1)
        for name, model in models.items()
    }
    history = [{"epoch": 1, "clean_loss": 1.0}]
    keywords = {
        "title": "A title",
        "summary": "A summary.",
        "evaluations": evaluations,
        "histories": {"first": history},
        "settings": {"eps": EPS},
    }
    curves = training_curves({"first": history})
    (tmp_path / "kept.txt").write_text("mine")
    report = write_report(
        tmp_path, figures={"curves": ("Curves. How it went.", curves)}, **keywords
    )
    text = report.read_text()
    assert text.startswith("# A title\n\nA summary.")
    assert "## Curves\n\n![curves](curves.png)" in text
    assert f"{100 * evaluations['second'].clean.accuracy:.1f} (" in text
    plain = json.loads((tmp_path / "results.json").read_text())
    assert plain["evaluations"]["first"] == evaluations["first"].to_dict()
    assert plain["histories"]["first"] == history
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.md", "results.json", "curves.png", "kept.txt"}
    other = evaluate(models["first"], x, y, eps=EPS, attacks="FGSM", flatness_steps=0)
    with pytest.raises(ValueError, match="has other attacks"):
        comparison({**evaluations, "third": other})
