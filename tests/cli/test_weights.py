"""Weights that know what they are: commands take from them what is not given, and say so."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from lfr_testing import refusal_of

from art_lfr.cli import main
from art_lfr.models import (
    NetworkInfo,
    digits_cnn,
    load_network,
    make_network,
    network_info,
    save_network,
)

QUICK = ["--images", "20", "--attacks", "FGSM"]
TRAIN = ["train", "--epochs", "1", "--max-iter", "1", "--batch-size", "512"]
INFO = NetworkInfo(
    classes=10, input_shape=(1, 8, 8), eps=0.3, norm="2", bounds=(0.0, 1.0), data="digits"
)
CHECKS = "--eps is 0.1; robust.safetensors was trained at eps 0.3"


@pytest.fixture
def folder(user_folder: Path) -> Path:
    save_network("robust.safetensors", digits_cnn(), INFO)
    torch.save(digits_cnn().state_dict(), "plain.pt")
    return user_folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    return out, err


def test_a_file_is_all_that_evaluate_needs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(capsys, "evaluate", "--weights", "robust.safetensors", *QUICK)
    assert "eps 0.3, norm 2;" in out
    assert "weights: robust.safetensors, trained on digits at eps 0.3, norm 2" in out
    assert "--eps" not in err
    out, _ = printed(capsys, "evaluate", "--weights", "robust.safetensors", *QUICK, "--json")
    found = json.loads(out)
    assert (found["eps"], found["norm"]) == (0.3, "2")
    trained = {"file": "robust.safetensors", "eps": 0.3, "norm": "2", "data": "digits"}
    assert found["weights"] == trained


def test_a_given_option_wins_and_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--eps", "0.1", "--norm", "inf", *QUICK]
    out, err = printed(capsys, "evaluate", "--weights", "robust.safetensors", *given)
    assert "eps 0.1, norm inf;" in out
    assert "trained on digits at eps 0.3, norm 2" in out
    assert err.splitlines()[:2] == [  # before any result
        CHECKS,
        "--norm is inf; robust.safetensors was trained in the norm 2",
    ]
    same = ["--eps", "0.3", "--norm", "2", "--data", "digits", "--model", "digits-cnn", *QUICK]
    _, err = printed(capsys, "evaluate", "--weights", "robust.safetensors", *same)
    assert "robust.safetensors" not in err


def test_the_eps_of_another_norm_is_told_as_such(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ["--norm", "inf", *QUICK]
    _, err = printed(capsys, "evaluate", "--weights", "robust.safetensors", *other)
    assert (
        "--eps is 0.1, the default for digits; robust.safetensors was trained at eps 0.3 in norm "
        "2, which says nothing for norm inf\n"
    ) in err
    assert "does not say" not in err


def test_plain_weights_say_that_they_know_no_eps(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(capsys, "evaluate", "--weights", "plain.pt", *QUICK)
    assert "eps 0.1, norm inf;" in out
    assert "weights: plain.pt, the file does not say at which eps they were trained" in out
    assert "--eps is 0.1, the default for digits; plain.pt does not say at which eps" in err
    out, err = printed(capsys, "evaluate", "--weights", "plain.pt", "--eps", "0.2", *QUICK)
    assert "eps 0.2, norm inf;" in out
    assert "--eps" not in err


@pytest.mark.parametrize(
    "command",
    [
        ["flatness", "--steps", "1"],
        ["masking", "--images", "20", "--surrogate", "robust.safetensors"],
        ["plot", "flatness", "--images", "4", "--steps", "1", "--restarts", "1"],
    ],
    ids=lambda command: command[0],
)
def test_the_other_commands_too(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    if command[0] == "plot":
        pytest.importorskip("matplotlib")
    line = [*command, "--weights", "robust.safetensors", "--eps", "0.1"]
    assert main(line) in (0, 2)  # masking: too few images are right to judge
    assert CHECKS in capsys.readouterr().err
    assert main(line[:-2]) in (0, 2)
    out, err = capsys.readouterr()
    assert "--eps" not in err
    if command[0] != "plot":
        assert "eps 0.3, norm 2" in out


def test_check_and_tune(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys, "check", "--weights", "robust.safetensors")
    assert "Nothing found" in out
    assert err == ""
    small = "--epochs 1 --batch-size 512 --train 512 --held-out 20 --max-iter 1 --minutes 0.01"
    out, _ = printed(capsys, "tune", "--weights", "robust.safetensors", *small.split())
    assert "--data digits --eps 0.3 --norm 2" in out


def test_a_second_network_is_what_its_own_file_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (folder / "wide.py").write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    save_network(
        "wide.safetensors", make_network("wide:make"), dataclasses.replace(INFO, model="wide:make")
    )
    quick = ["--images", "4", "--steps", "1", "--restarts", "1"]
    compare = ["--compare", "wide=wide.safetensors"]
    printed(capsys, "plot", "flatness", "--weights", "robust.safetensors", *compare, *quick)


def test_train_writes_a_file_that_knows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(capsys, *TRAIN, "--eps", "0.2", "--lam", "0.05")
    assert "Weights: lfr-weights.safetensors" in out
    info = network_info("lfr-weights.safetensors")
    assert info is not None
    assert (info.model, info.data, info.eps, info.norm) == ("digits-cnn", "digits", 0.2, "inf")
    assert info.settings["lam"] == 0.05
    assert info.settings["epochs"] == 1
    assert 0 < info.metrics["validation_accuracy"] < 1
    printed(capsys, *TRAIN, "--eps", "0.2", "--lam", "0.05", "--output", "a.pt")
    plain = torch.load("a.pt", weights_only=True)
    found = load_network("lfr-weights.safetensors").state_dict()
    assert all(torch.equal(plain[name], value) for name, value in found.items())
    # It goes on from its own file, at the eps of that file.
    printed(capsys, *TRAIN, "--weights", "lfr-weights.safetensors", "--output", "b.safetensors")
    again = network_info("b.safetensors")
    assert again is not None
    assert again.eps == 0.2


@pytest.fixture
def mine(folder: Path) -> Path:
    x = np.random.default_rng(0).random((64, 6, 6)).astype(np.float32)
    np.savez(
        "mine.npz", x_train=x, y_train=np.arange(64) % 3, x_test=x[:20], y_test=np.arange(20) % 3
    )
    return folder


def test_a_network_and_data_of_the_users_own(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--model", "nets_of_a_user:make", "--data", "mine.npz"]
    printed(capsys, *TRAIN, *own, "--eps", "0.2")
    info = network_info("lfr-weights.safetensors")
    assert info is not None
    assert (info.model, info.data, info.classes) == ("nets_of_a_user:make", "mine.npz", 3)
    judge = ["evaluate", "--weights", "lfr-weights.safetensors", *QUICK]
    assert "--data is missing: lfr-weights.safetensors was trained on mine.npz" in refusal_of(
        judge, capsys
    )
    out, err = printed(capsys, *judge, "--data", "mine.npz")
    assert "trained on mine.npz at eps 0.2" in out
    assert "--data" not in err
    Path("nets_of_a_user.py").unlink()
    sys.modules.pop("nets_of_a_user")
    refusal = refusal_of([*judge, "--data", "mine.npz"], capsys)
    assert "No module named 'nets_of_a_user'; allowed: a module that can be imported" in refusal


def test_a_preprocessing_is_trained_on_behind(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network alone is trained and written, with the preprocessing beside it."""
    how = dataclasses.replace(INFO, preprocessing={"mean": 0.25, "std": 0.5})
    save_network("pre.safetensors", digits_cnn(), how)
    printed(capsys, *TRAIN, "--weights", "pre.safetensors", "--output", "post.safetensors")
    info = network_info("post.safetensors")
    assert info is not None
    assert (info.model, info.preprocessing) == ("digits-cnn", {"mean": 0.25, "std": 0.5})
    printed(capsys, "evaluate", "--weights", "post.safetensors", *QUICK)


def test_bounds_are_those_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_network(
        "bytes.safetensors", digits_cnn(), dataclasses.replace(INFO, bounds=(0.0, 255.0), eps=8.0)
    )
    out, err = printed(capsys, "evaluate", "--weights", "bytes.safetensors", *QUICK)
    assert "eps 8, norm 2" in out
    assert "--weights is for inputs in [0, 255]; those of digits are in [0, 1]" in err
    for wrong in (("low", "high"), (0.0, [1.0, [2.0]]), (0.0, 1.0, 2.0)):
        save_network("odd.safetensors", digits_cnn(), dataclasses.replace(INFO, bounds=wrong))
        refusal = refusal_of(["evaluate", "--weights", "odd.safetensors", *QUICK], capsys)
        assert "--weights has the bounds" in refusal


@pytest.mark.parametrize("command", ["evaluate", "masking", "flatness", "check"])
def test_what_the_file_does_not_say_is_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    save_network("own.safetensors", network, INFO)
    refusal = refusal_of([command, "--weights", "own.safetensors"], capsys)
    assert "--model is" in refusal
    assert "own.safetensors does not say which network it holds" in refusal
    safetensors.torch.save_file(digits_cnn().state_dict(), "others.safetensors")
    quick = {"evaluate": QUICK, "masking": QUICK[:2], "flatness": ["--steps", "1"], "check": []}
    assert main([command, "--weights", "others.safetensors", *quick[command]]) in (0, 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--eps", "-1"], "--eps is -1.0; allowed"),
        (["--norm", "3"], "--norm is '3'"),
        (["--weights", "absent.safetensors"], "'absent.safetensors', which is no file"),
    ],
)
def test_refusals(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert says in refusal_of(["evaluate", "--weights", "robust.safetensors", *arguments], capsys)
