import json

import numpy as np
import pandas
import pytest
import torch
from lfr_testing import refusal_of

from art_lfr.cli import main
from art_lfr.data import digits
from art_lfr.models import digits_cnn

EPS = 0.05


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A digits network after two quick epochs of plain training."""
    monkeypatch.chdir(tmp_path)
    model, data = digits_cnn(), digits()
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for start in [*range(0, len(x), 64)] * 3:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model(x[start : start + 64]), y[start : start + 64]
        )
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), "weights.pt")
    return tmp_path


BASE = ["evaluate", "--weights", "weights.pt", "--eps", str(EPS), "--images", "40"]


def test_table_files_and_resume(weights, capsys):
    attacks = ["--attacks", "PGD-40,Square"]
    files = ["--output", "table.json", "--save-adversarial", "adv.npz", "--state-dir", "state"]
    assert main([*BASE, *attacks, *files, "--metrics", "loss_sensitivity"]) == 0
    out, err = capsys.readouterr()
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("│")][1:]
    assert rows == ["clean", "PGD-40", "Square", "worst"]
    assert "loss_sensitivity" in out
    assert max(map(len, out.splitlines()[:6])) <= 80
    assert "PGD-40:" in err  # each row as it is found
    saved = json.loads((weights / "table.json").read_text())
    assert [row["images"] for row in saved["rows"]] == [40] * 4
    examples = np.load(weights / "adv.npz")
    assert examples["Square"].shape == (40, 1, 8, 8)
    # Finished attacks are taken from the state directory, JSON goes to stdout alone.
    assert main([*BASE, *attacks, "--state-dir", "state", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["per_sample"]["correct"] == saved["per_sample"]["correct"]
    assert again["rows"][1]["seconds"] == saved["rows"][1]["seconds"]


@pytest.mark.parametrize("ending", [".md", ".tex", ".csv"])
def test_other_formats(weights, ending):
    assert main([*BASE, "--attacks", "FGSM", "--output", f"table{ending}"]) == 0
    text = (weights / f"table{ending}").read_text()
    if ending == ".csv":
        assert list(pandas.read_csv(weights / "table.csv")["name"]) == [
            "clean",
            "FGSM",
            "worst case",
        ]
    assert "worst case" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "--model", "os:system"], "--model is 'os:system', which fails"),
        (["evaluate"], "--weights is missing"),
        ([*BASE, "--attacks", "PGD-41"], "did you mean 'PGD-40'"),
        ([*BASE, "--images", "0"], "--images is 0"),
        ([*BASE, "--output", "table.txt"], "ending in .json or .md or .tex or .csv"),
        ([*BASE, "--metrics", "clever"], "--metrics is 'clever'; allowed: 'clever_u'"),
        ([*BASE, "--save-adversarial", "adv.pt"], "ending in .npz"),
        ([*BASE, "--eps", "-1"], "eps is -1"),
    ],
)
def test_bad_usage_is_one_line(weights, capsys, arguments, words):
    assert words in refusal_of(arguments, capsys)
