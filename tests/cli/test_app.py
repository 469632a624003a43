import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import safetensors.torch
import torch
from lfr_testing import printed_by_python, refusal_of
from typer.testing import CliRunner

from art_lfr.cli import app, inputs, main
from art_lfr.cli.known import resolve
from art_lfr.models import digits_cnn


@pytest.fixture
def folder(user_folder):
    """A current directory with a module of networks and a small .npz file."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (64, 6, 6)).astype(np.uint8)
    y = generator.integers(0, 3, 64)
    x[np.arange(64), y] = 255
    np.savez("mine.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return user_folder


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
    plain = safetensors.torch.load_file("lfr-weights.safetensors")
    assert main([*arguments, *option]) == 0
    other = safetensors.torch.load_file("lfr-weights.safetensors")
    assert any(not torch.equal(plain[name], other[name]) for name in plain)


def test_a_network_is_judged_on_the_gpu_where_there_is_one(folder, monkeypatch):
    torch.save(digits_cnn(seed=3).state_dict(), "w.pt")
    monkeypatch.setattr(inputs, "default_device", lambda: torch.device("meta"))  # in its place
    chosen = resolve(Path("w.pt"), model=None, data=None)
    network, _, x, y, *_ = inputs.judged(chosen, "test", 4)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert (len(x), len(y)) == (4, 4)


def test_check(folder, capsys):
    assert main(["check", *TINY, "--estimator", "exact"]) == 0
    assert "Nothing found" in capsys.readouterr().out
    assert main(["check", "--model", "nets_of_a_user:make_dropout", "--data", "mine.npz"]) == 0
    output = capsys.readouterr().out
    assert "warning 0 (Dropout)" in output
    assert "fix:" in output
    assert main(["check", "--model", "nets_of_a_user:make_broken", "--data", "mine.npz"]) == 1
    assert "error 1 (Threshold)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["train", "--epss", "1"], "--epss"),
        (["train", "--eps", "wide"], "--eps"),
        (["train", *TINY, "--eps", "-1"], "--eps is -1.0; allowed"),
        (["train", *TINY, "--norm", "3"], "norm is '3'"),
        (["train", *TINY, "--estimator", "exat"], "did you mean 'exact'"),
        (["train", *TINY, "--penalty", "flat"], "penalty is 'flat'"),
        (["train", *TINY, "--penalty", "cure"], "lam is None with penalty 'cure'"),
        (["train", *TINY, "--lr", "0"], "--lr is 0.0"),
        (["train", *TINY, "--epochs", "0"], "--epochs is 0"),
        (["train", *TINY, "--batch-size", "0"], "--batch-size is 0"),
        (["train", *TINY, "--resume"], "--resume is True with --checkpoint-dir None"),
        (["train", *TINY, "--max-grad-norm", "-1"], "--max-grad-norm is -1.0"),
        (["train", *TINY, "--output", "missing/a.pt"], "--output is 'missing/a.pt'"),
        (["train", *TINY, "--output", "a.txt"], "ending in .safetensors or .pt or .pth"),
        (["train", "--model", "small-cnn"], "does not run on images of shape (1, 8, 8)"),
        (["check", "--model", "mlp"], "--model is 'mlp'; allowed: digits-cnn"),
        (["check", "--model", "nowhere:make"], "No module named 'nowhere'"),
        (["check", "--model", "nets_of_a_user:number"], "not callable"),
        (["check", "--model", "nets_of_a_user:wrong"], "returned a dict"),
        (["check", "--model", "nets_of_a_user:absent"], "absent"),
        (["check", "--data", "absent.npz"], "'absent.npz' does not exist"),
        (["check", "--data", "nets_of_a_user.py"], "--data is 'nets_of_a_user.py'"),
        (["flatness"], "--weights is missing"),
        (["flatness", "--weights", "absent.pt"], "absent.pt is no file"),
        (["flatness", "--weights", "mine.npz"], "mine.npz"),
        (["flatness", *TINY, "--split", "validation"], "--split is 'validation'"),
        (["flatness", *TINY, "--output", "f.txt"], "ending in .csv or .json"),
        (["demo", "--epochs", "0"], "epochs is 0"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(folder, capsys, arguments, words):
    assert words in refusal_of(arguments, capsys)
    assert not (folder / "lfr-weights.safetensors").exists()


def test_a_run_that_is_not_resumed_is_refused_in_the_words_of_the_command(folder, capsys):
    arguments = ["train", *TINY, "--eps", "0.05", "--checkpoint-dir", "run"]
    assert main([*arguments, "--epochs", "1"]) == 0
    capsys.readouterr()
    assert "run', which holds a run; allowed: a new directory, or --resume" in refusal_of(
        [*arguments, "--epochs", "1"], capsys
    )
    refusal = refusal_of([*arguments, "--epochs", "1", "--resume", "--max-iter", "3"], capsys)
    assert "--max-iter is 3, but the run in --checkpoint-dir has 10" in refusal


def test_weights_of_another_network_and_labels_it_lacks(folder, capsys):
    torch.save(digits_cnn().state_dict(), "digits.pt")
    refusal = refusal_of(["flatness", *TINY, "--weights", "digits.pt"], capsys)
    assert "does not fit the model" in refusal
    x = np.zeros((4, 6, 6), dtype=np.float32)
    np.savez("many.npz", x_train=x, y_train=[0, 1, 2, 3])
    many = ["train", "--model", "nets_of_a_user:make", "--data", "many.npz"]
    assert "labels from 0 to 3; allowed: 0 to 2" in refusal_of(many, capsys)


def test_installed_command_and_module(folder):
    command = Path(sys.executable).with_name("art-lfr")
    result = subprocess.run([command, "train", "--norm", "3"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("art-lfr: error: --norm is '3'")
    assert result.stderr.count("\n") == 1
    slow = "import sys, art_lfr.cli; print('torch' in sys.modules or 'art' in sys.modules)"
    assert printed_by_python("-c", slow).strip() == "False"
    assert "art-lfr" in printed_by_python("-m", "art_lfr", "--help")


def test_train_has_every_setting_of_the_trainer():
    """Those of the command line that are given reach the trainer, also where they are 0."""
    from art_lfr.cli.options import without_missing
    from art_lfr.cli.train import train
    from art_lfr.core.keywords import TrainerKeywords

    options = inspect.signature(train).parameters
    assert set(TrainerKeywords.__annotations__) <= set(options)
    settings = dict.fromkeys(TrainerKeywords.__annotations__) | {"lam": 0.0, "autocast": False}
    assert without_missing(settings | {"warm_start": True}) == {"lam": 0.0, "warm_start": True}
