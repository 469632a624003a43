import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from typer.testing import CliRunner

from art_lfr.cli import app, inputs, main
from art_lfr.core import modes
from art_lfr.data import digits, load_npz
from art_lfr.models import digits_cnn

FACTORY = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))

def make_dropout():
    return torch.nn.Sequential(torch.nn.Dropout(0.5), make())

def make_broken():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Threshold(9.0, 0.0), make())

number = 3
wrong = dict
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with a module of networks and a small .npz file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.delitem(sys.modules, "nets_of_a_user", raising=False)
    (tmp_path / "nets_of_a_user.py").write_text(FACTORY)
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (64, 6, 6)).astype(np.uint8)
    y = generator.integers(0, 3, 64)
    x[np.arange(64), y] = 255
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return tmp_path


TINY = ["--model", "nets_of_a_user:make", "--data", "mine.npz"]


def test_help_teaches():
    runner = CliRunner()
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for word in (
        "demo",
        "train",
        "evaluate",
        "masking",
        "flatness",
        "check",
        "local flatness regularization",
    ):
        assert word in result.output
    for command in ("demo", "train", "evaluate", "masking", "flatness", "check"):
        result = runner.invoke(app, [command, "--help"], env={"COLUMNS": "80"})
        assert result.exit_code == 0
        assert f"art-lfr {command}" in result.output
        assert "Example" in result.output
        plain = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
        assert max(map(len, plain.splitlines())) <= 80


def test_train_then_measure(folder, capsys):
    arguments = ["train", *TINY, "--eps", "0.05", "--epochs", "3", "--batch-size", "16"]
    assert main([*arguments, "--output", "a.pt", "--checkpoint-dir", "run"]) == 0
    output = capsys.readouterr().out
    assert "Weights: a.pt" in output
    assert "train accuracy" in output
    weights = torch.load(folder / "a.pt", weights_only=True)
    assert weights["1.weight"].shape == (3, 36)
    # The same run again gives the same weights; a finished run, resumed, too.
    assert main([*arguments, "--output", "b.pt"]) == 0
    assert main([*arguments, "--output", "c.pt", "--checkpoint-dir", "run", "--resume"]) == 0
    for other in ("b.pt", "c.pt"):
        again = torch.load(folder / other, weights_only=True)
        assert all(torch.equal(again[name], value) for name, value in weights.items())
    # A cycle of the learning rate cannot be made longer once it has begun.
    longer = [
        *arguments,
        "--epochs",
        "4",
        "--output",
        "e.pt",
        "--checkpoint-dir",
        "run",
        "--resume",
    ]
    assert main(longer) != 0
    assert "total_steps" in capsys.readouterr().err
    assert not (folder / "e.pt").exists()
    assert main([*arguments, "--output", "d.pt", "--seed", "1"]) == 0
    other = torch.load(folder / "d.pt", weights_only=True)
    assert not torch.equal(other["1.weight"], weights["1.weight"])
    capsys.readouterr()

    measure = ["flatness", *TINY, "--weights", "a.pt", "--eps", "0.05"]
    assert main([*measure, "--output", "f.csv"]) == 0
    output = capsys.readouterr().out
    table = pandas.read_csv(folder / "f.csv")
    assert list(table.columns) == ["index", "label", "flatness"]
    assert len(table) == 20
    assert f"{table.flatness.mean():.4g}" in output
    assert f"{table.flatness.median():.4g}" in output
    assert max(map(len, output.splitlines())) <= 80
    assert main([*measure, "--output", "f.json", "--split", "train"]) == 0
    records = json.loads((folder / "f.json").read_text())
    assert len(records) == 64
    assert set(records[0]) == {"index", "label", "flatness"}
    assert not list(folder.glob(".*partial"))


@pytest.mark.parametrize("option", [["--penalty", "lfr-held"], ["--warm-start"], ["--autocast"]])
def test_options_reach_the_trainer(folder, option):
    arguments = ["train", *TINY, "--eps", "0.05", "--epochs", "2", "--batch-size", "16"]
    assert main(arguments) == 0
    plain = torch.load("lfr-weights.pt", weights_only=True)
    assert main([*arguments, *option]) == 0
    other = torch.load("lfr-weights.pt", weights_only=True)
    assert any(not torch.equal(plain[name], other[name]) for name in plain)


def test_a_network_is_judged_on_the_gpu_where_there_is_one(folder, monkeypatch):
    torch.save(digits_cnn(seed=3).state_dict(), "w.pt")
    monkeypatch.setattr(modes, "default_device", lambda: torch.device("meta"))  # in its place
    network, _, x, y = inputs.judged("digits-cnn", Path("w.pt"), "digits", "test", 4)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert (len(x), len(y)) == (4, 4)


def test_check(folder, capsys):
    assert main(["check", *TINY, "--estimator", "exact"]) == 0
    assert "Nothing found" in capsys.readouterr().out
    assert main(["check", "--model", "nets_of_a_user:make_dropout", "--data", "mine.npz"]) == 0
    output = capsys.readouterr().out
    assert "warning 0 (Dropout)" in output
    assert "mend:" in output
    assert main(["check", "--model", "nets_of_a_user:make_broken", "--data", "mine.npz"]) == 1
    assert "error 1 (Threshold)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["train", "--epss", "1"], "--epss"),
        (["train", "--eps", "wide"], "--eps"),
        (["train", *TINY, "--eps", "-1"], "eps is -1.0; allowed"),
        (["train", *TINY, "--norm", "3"], "norm is '3'"),
        (["train", *TINY, "--estimator", "exat"], "did you mean 'exact'"),
        (["train", *TINY, "--penalty", "flat"], "penalty is 'flat'"),
        (["train", *TINY, "--penalty", "cure"], "lam is None with penalty 'cure'"),
        (["train", *TINY, "--lr", "0"], "--lr is 0.0"),
        (["train", *TINY, "--epochs", "0"], "--epochs is 0"),
        (["train", *TINY, "--batch-size", "0"], "--batch-size is 0"),
        (["train", *TINY, "--resume"], "resume is True"),
        (["train", *TINY, "--output", "missing/a.pt"], "--output is 'missing/a.pt'"),
        (["train", *TINY, "--output", "a.txt"], "ending in .pt or .pth"),
        (["train", "--model", "small-cnn"], "does not run on images of shape (1, 8, 8)"),
        (["check", "--model", "mlp"], "--model is 'mlp'; allowed: digits-cnn"),
        (["check", "--model", "nowhere:make"], "No module named 'nowhere'"),
        (["check", "--model", "nets_of_a_user:number"], "not callable"),
        (["check", "--model", "nets_of_a_user:wrong"], "returned a dict"),
        (["check", "--model", "nets_of_a_user:absent"], "absent"),
        (["check", "--data", "absent.npz"], "'absent.npz' does not exist"),
        (["check", "--data", "nets_of_a_user.py"], "--data is 'nets_of_a_user.py'"),
        (["flatness"], "--weights is missing"),
        (["flatness", "--weights", "absent.pt"], "absent.pt does not exist"),
        (["flatness", "--weights", "mine.npz"], "mine.npz"),
        (["flatness", *TINY, "--split", "validation"], "--split is 'validation'"),
        (["flatness", *TINY, "--output", "f.txt"], "ending in .csv or .json"),
        (["demo", "--epochs", "0"], "epochs is 0"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(folder, capsys, arguments, words):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("art-lfr: error: ")
    assert words in captured.err
    assert not (folder / "lfr-weights.pt").exists()


def test_weights_of_another_network_and_labels_it_lacks(folder, capsys):
    torch.save(digits_cnn().state_dict(), "digits.pt")
    assert main(["flatness", *TINY, "--weights", "digits.pt"]) == 2
    assert "does not fit the model" in capsys.readouterr().err
    x = np.zeros((4, 6, 6), dtype=np.float32)
    np.savez("many.npz", x_train=x, y_train=[0, 1, 2, 3])
    assert main(["train", "--model", "nets_of_a_user:make", "--data", "many.npz"]) == 2
    assert "labels from 0 to 3; allowed: 0 to 2" in capsys.readouterr().err


def test_installed_command_and_module(folder):
    command = Path(sys.executable).with_name("art-lfr")
    result = subprocess.run([command, "train", "--norm", "3"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("art-lfr: error: norm is '3'")
    assert result.stderr.count("\n") == 1
    slow = "import sys, art_lfr.cli; print('torch' in sys.modules or 'art' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", slow], capture_output=True, text=True)
    assert result.stdout.strip() == "False"
    result = subprocess.run(
        [sys.executable, "-m", "art_lfr", "--help"], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "art-lfr" in result.stdout


def test_digits_are_split_once_and_for_all():
    first, second, other = digits(), digits(), digits(seed=1)
    assert [len(first.x_train), len(first.x_validation), len(first.x_test)] == [1197, 150, 450]
    np.testing.assert_array_equal(first.x_test, second.x_test)
    assert not np.array_equal(first.x_test, other.x_test)
    assert first.x_train.dtype == np.float32
    assert (first.x_train.min(), first.x_train.max()) == (0.0, 1.0)
    assert np.bincount(first.y_test).min() > 30


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 9, 8), (1, 9, 8)), ((5, 3, 9, 8), (3, 9, 8)), ((5, 9, 8, 3), (3, 9, 8))],
)
def test_images_of_a_file(tmp_path, shape, expected):
    x = np.arange(np.prod(shape)).reshape(shape) % 256
    np.savez(tmp_path / "d.npz", x_train=x.astype(np.uint8), y_train=np.eye(5))
    data = load_npz(tmp_path / "d.npz")
    assert data.x_train.shape == (5, *expected)
    assert data.x_train.dtype == np.float32
    assert data.x_train.max() <= 1.0
    first = x[0, 0, 1, 2] if shape[-1] == 3 else x[0].reshape(-1, 9, 8)[0, 0, 1]
    channel = 2 if shape[-1] == 3 else 0
    assert data.x_train[0, channel, 0, 1] == pytest.approx(first / 255)
    np.testing.assert_array_equal(data.y_train, range(5))
    assert len(data.x_test) == len(data.y_test) == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros((2, 3, 3))}, "missing: y_train"),
        ({"x_train": np.zeros((2, 3)), "y_train": [0, 1]}, r"x_train has shape \(2, 3\)"),
        ({"x_train": np.zeros((2, 3, 3), int), "y_train": [0, 1]}, "dtype int64"),
        ({"x_train": np.zeros((2, 3, 3)), "y_train": [0]}, r"y_train has shape \(1,\)"),
        ({"x_train": np.zeros((2, 3, 3)), "y_train": [0, -1]}, "label -1"),
        ({"x_train": np.zeros((2, 3, 3)), "y_train": [0, 0.5]}, "integer labels"),
        ({"x_train": np.full((2, 3, 3), np.nan), "y_train": [0, 1]}, "NaN"),
        (
            {"x_train": np.zeros((2, 3, 3)), "y_train": [0, 1], "x_test": np.zeros((2, 3, 3))},
            "only one of x_test and y_test",
        ),
        (
            {
                "x_train": np.zeros((2, 3, 3)),
                "y_train": [0, 1],
                "x_test": np.zeros((2, 4, 3)),
                "y_test": [0, 1],
            },
            "x_test has images of shape",
        ),
        ({"x_train": np.array([{}, {}], dtype=object), "y_train": [0, 1]}, "pickled"),
    ],
)
def test_bad_files(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_npz(tmp_path / "d.npz")
