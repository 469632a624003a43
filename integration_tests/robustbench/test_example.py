"""examples/robustbench_eval.py: RobustBench's arguments, and a run on images of one's own."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lfr_testing import ROOT

try:
    import art_lfr.robustbench
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported: {error}", allow_module_level=True)

import robustbench
from robustbench.model_zoo.enums import BenchmarkDataset


@pytest.fixture
def example():
    path = ROOT / "examples" / "robustbench_eval.py"
    spec = importlib.util.spec_from_file_location("robustbench_eval", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_arguments_are_robustbenchs(example, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["robustbench.eval"])
    theirs = vars(robustbench.utils.parse_args())
    ours = vars(example.parse_args([]))
    assert {name: ours[name] for name in theirs} == theirs
    assert example.parse_args(["--eps=8/255"]).eps == 8 / 255
    # For RobustBench itself any text but the empty one is true.
    assert example.parse_args(["--to_disk=False"]).to_disk is False


@pytest.fixture
def files(net, data, tmp_path, monkeypatch):
    """A module with a network, its weights, images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).with_name("user_modules"))
    weights = {k.removeprefix("layers."): v for k, v in net().state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "weights.pt")
    np.savez(tmp_path / "images.npz", x=data[0].numpy(), y=data[1].numpy())
    return ["--architecture=my_network:make", "--custom_checkpoint=weights.pt", "--device=cpu"]


def test_images_of_ones_own(example, files, short, capsys):
    arguments = ["--images=images.npz", "--model_name=Mine", "--n_ex=12", "--eps=0.006"]
    example.main(example.parse_args([*files, *arguments, "--state_path=run.state"]))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Clean accuracy: 75.00%"  # 9 of the first 12
    entry = json.loads(Path("model_info/cifar10/Linf/Mine.json").read_text())
    assert printed[-1] == f"Adversarial accuracy: {float(entry['autoattack_acc']):.2f}%"
    assert Path("run.state").exists()
    with pytest.raises(SystemExit, match="--threat_model=Linf or L2"):
        example.main(example.parse_args([*files, *arguments, "--threat_model=corruptions"]))


def test_a_data_set_of_robustbench(example, files, short, data, monkeypatch, capsys):
    loaders = robustbench.data._clean_dataset_loaders
    monkeypatch.setitem(
        loaders, BenchmarkDataset.cifar_10, lambda n, *_: (data[0][:n], data[1][:n])
    )
    arguments = [*files, "--n_ex=12", "--eps=0.006", "--to_disk=False"]
    example.main(example.parse_args(arguments))
    expected = capsys.readouterr().out.splitlines()
    example.main(example.parse_args([*arguments, "--images=images.npz"]))
    found = capsys.readouterr().out.splitlines()
    assert (found[0], found[-1]) == (expected[0], expected[-1])
    assert not Path("model_info").exists()


SNIPPETS = {
    f"{page.name} {count}": block
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for count, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    if "robustbench" in block
}


@pytest.mark.parametrize("place", SNIPPETS)
def test_snippets_of_readme_and_docs(place, short, net, data, monkeypatch, tmp_path, capsys):
    """As they are written, but with a network and images of ours in place of what is downloaded."""
    monkeypatch.chdir(tmp_path)
    for module in (robustbench.utils, art_lfr.robustbench.zoo):
        monkeypatch.setattr(module, "load_model", lambda *_, **__: net())
    loaders = robustbench.data._clean_dataset_loaders
    monkeypatch.setitem(
        loaders, BenchmarkDataset.cifar_10, lambda n, *_: (data[0][:n], data[1][:n])
    )
    names = {"x": data[0].numpy(), "y": data[1].numpy()}
    exec(compile(SNIPPETS[place], place, "exec"), names)
    if "benchmark(" in SNIPPETS[place]:
        assert "Adversarial accuracy" in capsys.readouterr().out
    else:
        assert len(names["trainer"].history) == 2
