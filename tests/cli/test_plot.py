"""`art-lfr plot`, end to end on a tiny network."""

import json
import re
import sys

import numpy as np
import pandas
import pytest
import torch
from lfr_testing import refusal_of
from torch import nn
from typer.testing import CliRunner

from art_lfr.cli import app, main
from art_lfr.evaluation.curves import accuracy_curve
from art_lfr.models import NetworkInfo, digits_cnn, save_network
from art_lfr.plots import gradient_maps, vulnerability

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


@pytest.fixture
def folder(user_folder):
    """A current directory with a factory, two files of weights and a small .npz file."""
    generator = np.random.default_rng(0)
    x = generator.random((12, 6, 6)).astype(np.float32)
    y = generator.integers(0, 3, 12)
    np.savez("mine.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    for name in ("one", "two"):
        torch.save(network().state_dict(), f"{name}.pt")
    return user_folder


TINY = ["--model", "nets_of_a_user:make", "--data", "mine.npz", "--weights", "one.pt"]
BALL = [*TINY, "--eps", "0.1"]
ASCENT = ["--steps", "2", "--restarts", "1"]


def loaded(folder, name):
    model = network()
    model.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True))
    data = np.load(folder / "mine.npz")
    return model, torch.from_numpy(data["x_test"][:, None]), torch.from_numpy(data["y_test"])


def test_flatness(folder, capsys):
    files = ["--output", "a.png", "--numbers", "a.csv"]
    assert main(["plot", "flatness", *BALL, *ASCENT, *files, "--compare", "second=two.pt"]) == 0
    output = capsys.readouterr().out
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    table = pandas.read_csv(folder / "a.csv")
    assert table.network.tolist() == ["one"] * 8 + ["second"] * 8
    expected = vulnerability(*loaded(folder, "two"), eps=0.1, steps=2, restarts=1)
    np.testing.assert_allclose(table.vulnerability[8:], expected.vulnerability, rtol=1e-6)
    np.testing.assert_allclose(table.flatness[8:], expected.flatness, rtol=1e-6)
    assert f"{expected.vulnerability.mean():.4g}" in output
    assert "bound violated" in output
    assert "Lower is more robust." in " ".join(output.split())
    assert "Numbers: a.csv" in output
    assert max(map(len, output.splitlines())) <= 80
    assert not list(folder.glob(".*partial"))


def test_gradients(folder, capsys):
    files = ["--output", "a.svg", "--numbers", "a.json", "--images", "5", "--name", "mine"]
    assert main(["plot", "gradients", *TINY, *files]) == 0
    records = json.loads((folder / "a.json").read_text())
    assert [record["network"] for record in records] == ["mine"] * 5
    model, x, y = loaded(folder, "one")
    expected = gradient_maps(model, x[:5], y[:5]).sparsity
    np.testing.assert_allclose([record["sparsity"] for record in records], expected, rtol=1e-6)
    assert (folder / "a.svg").read_bytes().startswith(b"<?xml")


def test_a_figure_is_called_after_its_kind(folder):
    assert main(["plot", "gradients", *TINY, "--images", "2"]) == 0
    assert (folder / "gradients.png").read_bytes().startswith(b"\x89PNG")


def test_surface(folder):
    files = ["--output", "a.pdf", "--numbers", "a.csv"]
    assert main(["plot", "surface", *BALL, *ASCENT, "--points", "3", *files, "--norm", "2"]) == 0
    assert (folder / "a.pdf").read_bytes().startswith(b"%PDF")
    assert len(pandas.read_csv(folder / "a.csv")) == 2 * 3 * 3


def test_curve(folder, capsys):
    files = ["--output", "a.png", "--numbers", "a.csv"]
    arguments = ["plot", "curve", *BALL, "--attacks", "PGD-40", *files]
    assert main([*arguments, "--eps", "0.03", "--points", "3"]) == 0
    table = pandas.read_csv(folder / "a.csv")
    np.testing.assert_allclose(table.eps, [0, 0.01, 0.02, 0.03])
    expected = accuracy_curve(
        *loaded(folder, "one"), eps=[0.01, 0.02, 0.03], attacks=["PGD-40"]
    ).to_frame()
    assert table.accuracy.tolist() == expected.accuracy.tolist()
    assert "Worst case of PGD-40 within eps" in capsys.readouterr().out
    # 3 / 8 of 0.1 is 0.037500000000000006.
    assert main([*arguments, "--points", "8", "--images", "2"]) == 0
    assert "0.0375," in (folder / "a.csv").read_text()


def test_another_network_for_other_images_is_named_before_any_work(folder, capsys, monkeypatch):
    monkeypatch.setattr("art_lfr.plots.gradient_maps", None)
    information = NetworkInfo(model="digits-cnn", classes=3, input_shape=(1, 8, 8))
    save_network(folder / "other.safetensors", digits_cnn(classes=3), information)
    words = refusal_of(["plot", "gradients", *TINY, "--compare", "b=other.safetensors"], capsys)
    assert "--compare other.safetensors does not run on images of shape (1, 6, 6)" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["surfaces", *BALL], "KIND is 'surfaces'"),
        (["flatness", *BALL, "--output", "a.jpg"], "--output is 'a.jpg'; allowed: a name ending"),
        (["flatness", *BALL, "--output", "no/a.png"], "a file in a writable directory"),
        (["flatness", *BALL, "--numbers", "a.txt"], "--numbers is 'a.txt'"),
        (["flatness", *BALL, "--images", "0"], "--images is 0"),
        (["surface", *BALL, "--points", "1"], "--points is 1"),
        (["flatness", *BALL, "--eps", "0"], "eps is 0.0"),
        (["curve", *BALL, "--eps", "-1"], "--eps is -1.0"),
        (["flatness", *BALL, "--norm", "3"], "norm is '3'"),
        (["flatness", *BALL, "--compare", "two.pt"], "--compare is 'two.pt'; allowed: NAME="),
        (["flatness", *BALL, "--compare", "one=two.pt"], "a name given twice"),
        (["flatness", *BALL, "--compare", "b=three.pt"], "three.pt"),
        (["flatness"], "--weights is missing"),
        (["flatness", *BALL, "--view", "3d"], "--view is '3d' with flatness"),
        (["flatness", *BALL, "--points", "3"], "--points is 3 with flatness"),
        (["flatness", *BALL, "--attacks", "PGD"], "allowed: with curve"),
        (["curve", *BALL, "--steps", "3"], "allowed: with flatness and surface"),
        (["curve", *BALL, "--restarts", "3"], "--restarts is 3 with curve"),
        (["gradients", *BALL], "--eps is 0.1 with gradients"),
        (["gradients", *TINY, "--norm", "2"], "--norm is '2' with gradients"),
        (["gradients", *TINY, "--seed", "0"], "--seed is 0 with gradients"),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(folder, capsys, arguments, words):
    before = sorted(path.name for path in folder.iterdir())
    assert words in refusal_of(["plot", *arguments], capsys)
    after = sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")
    assert after == before


def test_missing_matplotlib_is_said_before_any_work(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert 'pip install "art-lfr[plots]"' in refusal_of(["plot", "flatness", *BALL], capsys)


def test_help():
    result = CliRunner().invoke(app, ["plot", "--help"], env={"COLUMNS": "80"})
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    assert result.exit_code == 0
    for word in ("art-lfr plot", "Example", "--compare", "--numbers", "KIND"):
        assert word in plain
    assert max(map(len, plain.splitlines())) <= 80
