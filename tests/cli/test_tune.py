import json
import re
import shlex

import numpy as np
import pytest
from lfr_testing import refusal_of
from typer.testing import CliRunner

from art_lfr.cli import app, main
from art_lfr.core.settings import DEFAULTS
from art_lfr.data import load
from art_lfr.data.recipes import RECIPES


@pytest.fixture
def folder(user_folder):
    """A current directory with a network and small .npz files."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 100, (80, 6, 6)).astype(np.uint8)
    y = np.arange(80) % 3
    x[np.arange(80), y] = 255
    np.savez("mine.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    np.savez("own.npz", x_train=x, y_train=y, x_validation=x[:12], y_validation=y[:12])
    return user_folder


TINY = ["tune", "--model", "nets_of_a_user:make", "--data", "mine.npz", "--eps", "0.05"]
SHORT = ["--epochs", "2", "--batch-size", "16", "--max-iter", "2", "--attacks", "FGSM"]


def test_tune_then_train(folder, capsys):
    arguments = [*TINY, *SHORT, "--held-out", "20", "--minutes", "1e-6"]
    assert main([*arguments, "--output", "tuning.json", "--clean-floor", "0.2"]) == 0
    out, err = capsys.readouterr()
    assert "lam 0.5, radius 0.25, step 0.8: clean" in err
    assert max(map(len, out.splitlines())) <= 80
    assert "Proposal (*): lam 0.025" in out
    assert "more than asked for" in " ".join(out.split())
    content = json.loads((folder / "tuning.json").read_text())
    assert content["held_out"] == 20
    assert content["settings"]["train"] == 60
    assert len(content["trials"]) == 1
    # The printed line is one that the command takes.
    line = out[out.index("art-lfr train") :].replace("\\\n", "")
    assert main([*shlex.split(line)[1:], "--output", "a.pt"]) == 0
    for option, name in (("--lam", "lam"), ("--radius", "radius"), ("--eps-step", "eps_step")):
        value = float(re.search(rf"{option} (\S+)", line).group(1))
        assert value == pytest.approx(content["proposal"][name])
    assert (folder / "a.pt").exists()
    capsys.readouterr()
    # With another floor nothing is trained again.
    assert main([*arguments, "--clean-floor", "1"]) == 0
    out, err = capsys.readouterr()
    assert "Proposal (*): lam 0.025" in out
    assert err == ""


@pytest.fixture
def caught(monkeypatch):
    """What the command hands to `tune`, which then finds that nothing reaches 97 %."""
    from art_lfr.tuning import Trial, Tuning, candidates

    calls = []

    def tune(make_classifier, x, y, **keywords):
        calls.append({"make_classifier": make_classifier, "x": x, "y": y, **keywords})
        right = np.arange(20) < 19
        trial = Trial(candidates(np.inf, 10)[0], right, right, 1.0)
        return Tuning(
            eps=keywords["eps"],
            norm="inf",
            max_iter=keywords["max_iter"],
            clean_floor=keywords["clean_floor"],
            minutes=keywords["minutes"],
            trials=(trial,),
        )

    monkeypatch.setattr("art_lfr.tuning.run.tune", tune)
    return calls


def test_exit_status_says_whether_the_floor_is_reached(folder, caught, capsys):
    assert main([*TINY, "--clean-floor", "0.95"]) == 0
    assert main([*TINY, "--clean-floor", "0.97"]) == 1
    assert "reaches a clean accuracy of 97 %" in " ".join(capsys.readouterr().out.split())


def test_the_reference_is_what_train_takes(folder, caught, capsys):
    assert main(["tune", "--data", "digits"]) == 0
    assert main(["tune", "--data", "digits", "--penalty", "input-gradient"]) == 0
    assert main(["tune", "--data", "digits", "--eps", "0.5", "--norm", "2"]) == 0
    found = [call["reference"] for call in caught]
    row = RECIPES["digits"]
    assert row.lam != DEFAULTS[np.inf].lam
    assert [c.lam for c in found] == [row.lam, DEFAULTS[np.inf].lam, DEFAULTS[2.0].lam]
    assert {c.radius for c in found} == {DEFAULTS[np.inf].radius}


def test_another_tuning_in_the_folder_is_named(folder, capsys):
    arguments = [*TINY, *SHORT, "--held-out", "20", "--minutes", "1e-6"]
    assert main(arguments) == 0
    capsys.readouterr()
    error = refusal_of([*arguments, "--epochs", "3"], capsys)
    assert "--epochs is 3, but the tuning in " in error
    assert "art-lfr-tuning' has 2; " in error
    assert "; allowed: a new --state-dir, or what that tuning has" in error


def test_no_test_image_is_used(folder, caught, monkeypatch):
    loaded = []

    def load_without_test(name, **limits):
        assert limits["test"] == 0
        loaded.append(name)
        return load(name, **limits)

    monkeypatch.setattr("art_lfr.cli.inputs.load", load_without_test)
    assert main([*TINY, "--train", "30"]) == 0
    assert main([*TINY, "--data", "own.npz"]) == 0
    assert main(["tune", "--held-out", "70"]) == 0
    assert loaded == ["mine.npz", "own.npz", "digits"]
    mine, own, digits = caught
    x_held, y_held = mine["held_out"]
    assert (len(mine["x"]), len(x_held), len(y_held)) == (30, 16, 16)
    whole = np.load(folder / "mine.npz")["x_train"][:, None] / np.float32(255)
    assert np.allclose(mine["x"], whole[:30])
    assert np.allclose(x_held, whole[64:])
    assert (len(own["x"]), len(own["held_out"][0])) == (80, 12)
    assert (len(digits["x"]), len(digits["held_out"][0])) == (1197, 70)
    first, second = (mine["make_classifier"]() for _ in range(2))
    assert first is not second
    assert first.model is not second.model


def test_help_teaches():
    result = CliRunner().invoke(app, ["tune", "--help"], env={"COLUMNS": "80"})
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    assert result.exit_code == 0
    assert "art-lfr tune" in plain
    assert "Example" in plain
    assert max(map(len, plain.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*TINY, "--minutes", "0"], "--minutes is 0"),
        ([*TINY, "--clean-floor", "97"], "--clean-floor is 97.0; allowed: a share in (0, 1]"),
        ([*TINY, "--held-out", "0"], "--held-out is 0"),
        ([*TINY, "--held-out", "80"], "--held-out is 80; allowed: at most 79"),
        (["tune", "--held-out", "151"], "--held-out is 151; allowed: at most 150, the validation"),
        ([*TINY, "--train", "65"], "--train is 65; allowed: at most 64"),
        ([*TINY, "--train", "0"], "--train is 0"),
        ([*TINY, "--epochs", "0"], "--epochs is 0"),
        ([*TINY, "--max-iter", "0"], "--max-iter is 0"),
        ([*TINY, "--lr", "-1"], "--lr is -1"),
        ([*TINY, "--seed", "-1"], "--seed is -1"),
        ([*TINY, "--penalty", "llr"], "--penalty is 'llr'; allowed: 'lfr', 'lfr-held'"),
        ([*TINY, "--norm", "3"], "norm is '3'"),
        ([*TINY, "--attacks", "Squair"], "did you mean 'Square'"),
        ([*TINY, "--attacks", ","], "attacks is []"),
        ([*TINY, "--output", "a.txt"], "ending in .json"),
        ([*TINY, "--state-dir", "mine.npz"], "mine.npz'; allowed: a directory that is there"),
        (
            ["tune", "--data", "absent.npz", *TINY[1:3], *TINY[-2:]],
            "--data is 'absent.npz', which is no file",
        ),
        (["tune", "--data", "nowhere"], "--data is 'nowhere'"),
        (["tune", "--model", "mlp"], "--model is 'mlp'"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(folder, capsys, arguments, words):
    assert words in refusal_of(arguments, capsys)
