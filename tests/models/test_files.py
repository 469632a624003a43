"""Files of networks say what they are: made again from the file alone, and nothing else is run."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lfr_testing import TAKES_HOOKS, printed_by_python
from torch import nn

from art_lfr.errors import PlaceError, UsageError
from art_lfr.models import (
    NetworkInfo,
    Preprocessed,
    digits_cnn,
    load_network,
    make_network,
    narrow_resnet,
    network_info,
    save_network,
)
from art_lfr.storage.tensor_files import write_safetensors

INFO = NetworkInfo(
    classes=7,
    input_shape=(1, 8, 8),
    eps=0.3,
    norm="2",
    bounds=(0.0, 1.0),
    data="digits",
    data_digest="12ab",
    settings={"lam": 0.15, "epochs": 3},
    metrics={"loss": 0.25, "validation_accuracy": 0.5},
)


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_built_in_network_needs_nothing_but_its_file(tmp_path: Path) -> None:
    network = digits_cnn(3, classes=7).train()
    path = save_network(tmp_path / "net.safetensors", network, INFO)
    assert path == tmp_path / "net.safetensors"
    found = network_info(path)
    assert found is not None
    assert {"art-lfr", "torch"} <= found.versions.keys()
    assert dataclasses.replace(found, versions={}) == dataclasses.replace(INFO, model="digits-cnn")
    again = load_network(str(path))
    assert not again.training
    assert same(again, network)
    assert not list(tmp_path.glob(".*"))


def test_what_a_file_says_is_read_without_torch(tmp_path: Path) -> None:
    save_network(tmp_path / "net.safetensors", digits_cnn(classes=7), INFO)
    code = (
        "import sys; from art_lfr.storage.info import network_info; "
        "print(network_info('net.safetensors').eps, 'torch' in sys.modules)"
    )
    assert printed_by_python("-c", code, folder=tmp_path).split() == ["0.3", "False"]


def test_without_art(tmp_path: Path) -> None:
    save_network(tmp_path / "net.safetensors", digits_cnn(classes=7), INFO)
    code = (
        "import sys; sys.modules['art'] = None; import torch; from art_lfr.models import *; "
        "network = load_network('net.safetensors'); print(network(torch.rand(2, 1, 8, 8)).shape); "
        "save_network('again.safetensors', network, network_info('net.safetensors'))"
    )
    assert "[2, 7]" in printed_by_python("-c", code, folder=tmp_path)


@pytest.mark.parametrize(
    "network",
    [
        digits_cnn(classes=7, activation=nn.SiLU),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 7)),
        narrow_resnet(classes=7, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
    ],
    ids=["activation", "layers", "normalised"],
)
def test_what_is_no_built_in_network_is_asked_for(tmp_path: Path, network: nn.Module) -> None:
    path = save_network(tmp_path / "net.safetensors", network, INFO)
    found = network_info(path)
    assert found is not None
    assert found.model is None
    with pytest.raises(
        UsageError, match="does not say which network it holds; allowed: one of dig"
    ):
        load_network(path)
    assert same(load_network(path, model=lambda: copy.deepcopy(network)), network)
    with pytest.raises(TypeError, match="which returned a dict; allowed: a factory"):
        load_network(path, model=dict)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of networks; nothing but the current directory leads to it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "nets_of_a_file", raising=False)
    (tmp_path / "nets_of_a_file.py").write_text(
        "from os import abort\n"
        "from subprocess import getoutput\n"
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 7))\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(64, 7)\n"
        "class Other:\n"
        "    pass\n"
    )
    return tmp_path


@pytest.mark.parametrize("name", ["make", "Net"])
def test_a_network_of_a_factory(module: Path, name: str) -> None:
    network = make_network(f"nets_of_a_file:{name}", seed=5)
    info = dataclasses.replace(INFO, model=f"nets_of_a_file:{name}")
    path = save_network("net.safetensors", network, info)
    assert same(load_network(path), network)
    assert same(load_network(path, model=f"nets_of_a_file:{name}"), network)


def test_a_factory_of_elsewhere_in_its_package(module: Path) -> None:
    folder = module / "package_of_a_file"
    folder.mkdir()
    (module / "nets_of_a_file.py").rename(folder / "nets.py")
    (folder / "__init__.py").write_text("from package_of_a_file.nets import make, abort")
    network = make_network("package_of_a_file:make")
    info = dataclasses.replace(INFO, model="package_of_a_file:make")
    assert same(load_network(save_network("net.safetensors", network, info)), network)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("os:abort", "'os:abort', which is no class of networks and no function of a module"),
        ("subprocess:getoutput", "no function of a module"),
        ("nets_of_a_file:abort", "no function of a module"),
        ("nets_of_a_file:getoutput", "no function of a module"),
        ("nets_of_a_file:Other", "no class of networks"),
        ("nets_of_a_file:torch", "no class of networks"),
        ("nets_of_a_file:absent", "has no attribute 'absent'; allowed: a module that can be imp"),
        ("nowhere_at_all:make", "No module named 'nowhere_at_all'; allowed: a module that can be"),
        ("no-such-cnn", "no class of networks"),
    ],
)
def test_a_file_has_no_code_run(module: Path, name: str, says: str) -> None:
    """A record says whatever its writer likes, under a right check sum."""
    record = dataclasses.asdict(dataclasses.replace(INFO, model=name))
    path = module / "net.safetensors"
    write_safetensors(path, digits_cnn(classes=7).state_dict(), record)
    with pytest.raises(UsageError, match=says):
        load_network(path)
    assert same(load_network(path, model="digits-cnn"), digits_cnn(classes=7))


RECORDS: list[tuple[dict[str, Any], str]] = [
    ({"format": 2}, "of another version of art-lfr; allowed: format 1"),
    ({"format": None}, "of another version"),
    ({"eps": "0.3"}, "has the eps '0.3', which no art-lfr has written"),
    ({"classes": [7]}, "has the classes"),
    ({"norm": "flat"}, "has the norm 'flat', which"),
    ({"metrics": 3}, "has the metrics 3"),
    ({"surprise": 3}, "has the surprise 3"),
    ({"preprocessing": {"mean": 0.5}}, "has the preprocessing {'mean': 0.5}; allowed: mean and"),
    ({"preprocessing": {"mean": "a", "std": 1}}, "has the preprocessing"),
]


@pytest.mark.parametrize(("change", "says"), RECORDS)
def test_records_that_are_none(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "net.safetensors"
    record = {**dataclasses.asdict(INFO), "model": "digits-cnn", **change}
    write_safetensors(path, digits_cnn(classes=7).state_dict(), record)
    with pytest.raises(UsageError, match=says):
        load_network(path)


def test_preprocessing_is_part_of_the_network(tmp_path: Path) -> None:
    network = narrow_resnet(classes=7).eval()
    mean, std = [[[0.1]], [[0.2]], [[0.3]]], [[[0.5]], [[0.6]], [[0.7]]]
    info = NetworkInfo(classes=7, preprocessing={"mean": mean, "std": std})
    found = load_network(save_network(tmp_path / "net.safetensors", network, info))
    assert isinstance(found, Preprocessed)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(found(x), network((x - torch.tensor(mean)) / torch.tensor(std)))


def test_refused_before_anything_is_written(tmp_path: Path) -> None:
    network = digits_cnn(classes=7)
    with pytest.raises(UsageError, match=r"path is '.*net\.pt'; allowed: a name ending in \.safet"):
        save_network(tmp_path / "net.pt", network, INFO)
    with pytest.raises(PlaceError, match="path is "):
        save_network(tmp_path / "none" / "net.safetensors", network, INFO)
    wrong = dataclasses.replace(INFO, model="small-cnn")
    with pytest.raises(UsageError, match="model is 'small-cnn', which makes a network with other"):
        save_network(tmp_path / "net.safetensors", network, wrong)
    assert list(tmp_path.iterdir()) == []


def test_plain_weights_take_the_model_from_the_caller(tmp_path: Path) -> None:
    network = digits_cnn(4)
    torch.save(network.state_dict(), tmp_path / "w.pt")
    assert network_info(tmp_path / "w.pt") is None
    assert same(load_network(tmp_path / "w.pt", model="digits-cnn"), network)
    with pytest.raises(UsageError, match=r"model is None, and .* does not say which network"):
        load_network(tmp_path / "w.pt")
    with pytest.raises(FileNotFoundError, match=r"absent\.pt is no file"):
        load_network(tmp_path / "absent.pt")


@TAKES_HOOKS
def test_a_compiled_network_is_saved_as_it_is(tmp_path: Path) -> None:
    network = digits_cnn(classes=7)
    network[0] = torch.compile(network[0])
    assert "0._orig_mod.weight" in network.state_dict()
    path = save_network(
        tmp_path / "n.safetensors", network, dataclasses.replace(INFO, model="digits-cnn")
    )
    assert same(load_network(path), digits_cnn(classes=7))


def test_an_object_in_place_of_its_class_is_named() -> None:
    with pytest.raises(TypeError, match="model is a network, a Linear; allowed: what makes one"):
        make_network(torch.nn.Linear(2, 2))
