"""Exported entries load by name in a fresh process, with the same logits."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lfr_testing import classifier_around, printed_by_python
from torch import nn

try:
    import art_lfr.robustbench  # noqa: F401
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported here: {error}", allow_module_level=True)

from robustbench.model_zoo import model_dicts
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
from robustbench.utils import (
    get_leaderboard_bibtex,
    get_leaderboard_latex,
    list_available_models,
    load_model,
)

from art_lfr.models import NetworkInfo, load_network, save_network
from art_lfr.robustbench import export, register
from art_lfr.robustbench.export import eps_text

PAPER = {
    "title": 'Flat \\\\ "quoted" title',
    "authors": "A. One, B. Two",
    "venue": "ICIP 2020",
    "link": "https://example.org/paper",
    "architecture": "Backbone",
    "eps": 8 / 255,
    "clean_accuracy": 0.8312,
    "robust_accuracy": 0.45678,
}


@pytest.fixture
def networks(monkeypatch):
    """A module of a user's networks, importable here and in subprocesses."""
    folder = Path(__file__).with_name("user_modules")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    sys.modules.pop("user_networks", None)
    import user_networks

    yield user_networks
    sys.modules.pop("user_networks", None)


@pytest.fixture
def zoo():
    """The zoo as it was, after the test too."""
    before = {
        (dataset, threat): dict(models)
        for dataset, threats in model_dicts.items()
        for threat, models in threats.items()
    }
    yield model_dicts
    for (dataset, threat), models in before.items():
        model_dicts[dataset][threat].clear()
        model_dicts[dataset][threat].update(models)


def perturbed(network):
    """Weights and running statistics that no constructor gives."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand(tensor.shape, generator=generator)
    return network.eval()


def logits_of_a_fresh_process(folder, images, name, dataset, threat):
    np.save(folder / "images.npy", images)
    script = Path(__file__).parent / "scripts" / "load_entry.py"
    printed_by_python(script, name, dataset, threat, folder=folder, timeout=300)
    return np.load(folder / "logits.npy")


@pytest.mark.parametrize(
    ("dataset", "threat", "factory"),
    [
        ("imagenet", "L2", "thousand"),
        pytest.param("cifar10", "Linf", "Backbone", marks=pytest.mark.slow),
    ],
)
def test_a_fresh_process_loads_it_by_name(tmp_path, networks, zoo, dataset, threat, factory):
    make = getattr(networks, factory)
    network = perturbed(make())
    out = tmp_path / "out"
    name = "One2026Flat-R18_b"
    found = export(network, name, dataset, threat, out, **PAPER, factory=make)
    images = np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32)
    logits = logits_of_a_fresh_process(out, images, name, dataset, threat)
    with torch.no_grad():
        np.testing.assert_array_equal(logits, network(torch.from_numpy(images)).numpy())
    assert found.checkpoint == out / "models" / dataset / threat / f"{name}.pt"
    # Tensors only: nothing in it is code.
    state = torch.load(found.checkpoint, weights_only=True)["state_dict"]
    assert not any("." in key for key in state)
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1)])
def test_preprocessing_and_clip_values_are_folded_in(tmp_path, networks, zoo, shape):
    network = perturbed(networks.Backbone())
    mean = np.array([100.0, 110.0, 120.0], dtype=np.float32).reshape(shape)
    classifier = classifier_around(
        network, (3, 16, 16), 10, clip_values=(0.0, 255.0), preprocessing=(mean, mean / 2)
    )
    export(classifier, "One2026Flat", "cifar10", "L2", tmp_path / "out", **PAPER)
    images = np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32)
    logits = logits_of_a_fresh_process(tmp_path / "out", images, "One2026Flat", "cifar10", "L2")
    np.testing.assert_allclose(logits, classifier.predict(255 * images), rtol=1e-4, atol=1e-5)
    assert np.abs(logits).max() > 0.1


def test_a_file_that_says_what_it_is_is_enough(tmp_path, networks, zoo):
    """Network, eps, bounds and preprocessing are those of the file."""
    network = perturbed(networks.Backbone())
    info = NetworkInfo(
        model="user_networks:Backbone",
        classes=10,
        input_shape=(3, 16, 16),
        eps=0.25,
        bounds=(-1.0, 1.0),
        preprocessing={"mean": [[[0.1]], [[0.2]], [[0.3]]], "std": [[[0.5]], [[0.6]], [[0.7]]]},
    )
    path = save_network(tmp_path / "net.safetensors", network, info)
    paper = {name: value for name, value in PAPER.items() if name != "eps"}
    found = export(path, "One2026Flat", "cifar10", "L2", tmp_path / "out", **paper)
    assert json.loads(found.model_info.read_text())["eps"] == "0.25"
    images = np.random.default_rng(0).random((3, 3, 16, 16)).astype(np.float32)
    logits = logits_of_a_fresh_process(tmp_path / "out", images, "One2026Flat", "cifar10", "L2")
    expected = load_network(path)(torch.tensor(2 * images - 1)).detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    plain = tmp_path / "w.pt"
    torch.save(network.state_dict(), plain)
    with pytest.raises(TypeError, match="eps is None"):
        export(plain, "One2026Flat", "cifar10", "L2", tmp_path / "out", **paper)
    with pytest.raises(ValueError, match="does not say which network it holds"):
        export(plain, "One2026Flat", "cifar10", "L2", tmp_path / "out", **PAPER)


def test_model_info_leaderboards_and_request(tmp_path, networks, zoo, monkeypatch, capsys):
    found = export(
        perturbed(networks.Backbone()), "One2026Flat", "cifar10", "Linf", tmp_path, **PAPER
    )
    information = json.loads(found.model_info.read_text())
    assert information["eps"] == "8/255"
    assert information["clean_acc"] == "83.12"
    assert information["autoattack_acc"] == "45.68"
    assert information["additional_data"] is False
    assert information["number_forward_passes"] == 1
    register("One2026Flat", "cifar10", "Linf", networks.Backbone)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    list_available_models("cifar10", "Linf")
    table = capsys.readouterr().out
    assert "**One2026Flat**" in table
    assert "83.12%" in table
    assert "45.68%" in table
    cells = "83.12 & 45.68 & N & Backbone & ICIP 2020 & One2026Flat"
    latex = get_leaderboard_latex("cifar10", "Linf")
    assert latex == f"1 &\\citet{{One2026Flat}} & {cells}\\\\"
    _, bibtex = get_leaderboard_bibtex("cifar10", "Linf")
    assert "A. One and B. Two" in bibtex
    assert "year\t= {2020}" in bibtex
    request = found.request.read_text()
    for word in ("One2026Flat", "83.12 %", "45.68 %", "8/255", "ICIP 2020", "Backbone"):
        assert word in request


def test_the_html_leaderboard_where_its_template_exists(tmp_path, networks, zoo):
    from robustbench import leaderboard

    template = os.path.join(os.path.dirname(leaderboard.__file__), "leaderboard.html.j2")
    if not os.path.exists(template):
        pytest.skip("this wheel of RobustBench has no leaderboard.html.j2")
    from robustbench.leaderboard.template import generate_leaderboard

    export(perturbed(networks.Backbone()), "One2026Flat", "cifar10", "Linf", tmp_path, **PAPER)
    assert "45.68" in generate_leaderboard("cifar10", "Linf", str(tmp_path / "model_info"))


def test_register_loads_in_this_process(tmp_path, networks, zoo):
    network = perturbed(networks.Backbone())
    found = export(network, "One2026Flat", "cifar10", "Linf", tmp_path, **PAPER)
    # A constructor of one's own with the keys of the checkpoint: entry.py has it.
    namespace = {}
    exec(compile(found.entry.read_text(), "entry.py", "exec"), namespace)
    model = load_model("One2026Flat", tmp_path / "models", "cifar10", "Linf")
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(model(images), network(images))
    register("One2026Flat", "cifar10", "Linf", namespace["make"])
    assert model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]["One2026Flat"]["gdrive_id"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../evil"}, r"name is '\.\./evil'; allowed: letters"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"name": ".."}, "name is"),
        ({"name": ""}, "name is ''"),
        ({"name": "MyStandard"}, "without 'Standard'"),
        ({"name": "Carmon2019Unlabeled"}, "which the zoo has already"),
        ({"dataset": "mnist"}, "dataset is 'mnist'"),
        ({"threat_model": "L1"}, "threat_model is 'L1'"),
        ({"eps": 0}, "eps is 0"),
        ({"clean_accuracy": 83.1}, "clean_accuracy is 83.1; allowed: a share"),
        ({"robust_accuracy": -0.1}, "robust_accuracy is -0.1"),
        ({"venue": "ICIP"}, "venue is 'ICIP'; allowed: a text that ends with the year"),
        ({"number_forward_passes": 0}, "number_forward_passes is 0"),
        ({"factory": lambda: None}, "factory is .*lambda"),
        ({"factory": nn.Flatten}, "does not make the network"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path, networks, zoo, change, message):
    out = tmp_path / "out"
    keywords = {"name": "One2026Flat", "dataset": "cifar10", "threat_model": "Linf", **PAPER}
    keywords |= change
    with pytest.raises(ValueError, match=message):
        export(perturbed(networks.Backbone()), directory=out, **keywords)
    assert not out.exists()


def test_eps_is_written_as_grey_levels():
    assert [eps_text(eps) for eps in (8 / 255, 4 / 255, 0.5, 0.031)] == [
        "8/255",
        "4/255",
        "0.5",
        "0.031",
    ]
