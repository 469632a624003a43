"""Each example runs as a user would run it, and shows what it is there to show."""

from __future__ import annotations

import importlib.util
import re

import pytest
from lfr_testing import ROOT, printed_by_python

EXAMPLES = ROOT / "examples"
# What each example needs beside the package. That of RobustBench is run by
# integration_tests/robustbench/test_example.py.
LIBRARIES = {
    "art_pipeline": [],
    "plain_pytorch": [],
    "torchattacks_evaluation": ["torchattacks"],
    "tabular": [],
    "lightning_module": ["lightning"],
    "huggingface_images": ["transformers"],
    "trades_to_lfr": [],
    "mnist_end_to_end": [],
    "cifar10_end_to_end": [],
    "foreign_weights": [],
    "robustbench_finetune": ["robustbench"],
}


def run(name: str) -> str:
    """What the example prints."""
    for library in LIBRARIES[name]:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    return printed_by_python(EXAMPLES / f"{name}.py")


def rates(table: str) -> dict[str, float]:
    """Accuracy by attack, of a printed evaluation."""
    return {
        name.strip(): float(rate)
        for name, rate in re.findall(
            r"^│ ([\w -]+?) +│ +(?:\S+ [\d.]+ +│ +)?([\d.]+) │", table, re.MULTILINE
        )
    }


def test_each_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*LIBRARIES, "robustbench_eval"}


def test_art_pipeline():
    found = {
        name: float(rate)
        for name, rate in re.findall(r"^([\w-]+): ([\d.]+) %", run("art_pipeline"), re.MULTILINE)
    }
    assert found["clean"] > 93
    assert found["PGD-40"] > 70


def test_plain_pytorch():
    flatness = re.search(r"mean local flatness of 450 test images: ([\d.]+)", run("plain_pytorch"))
    assert flatness is not None
    assert float(flatness[1]) < 20  # that of the standard network is above 50


def test_torchattacks_evaluation():
    output = run("torchattacks_evaluation")
    found = rates(output)
    assert list(found)[:4] == ["clean", "PGD", "MI-FGSM", "least flat"]
    assert found["worst case"] > 70
    assert "No sign of gradient masking" in output


def test_tabular():
    standard, robust = map(rates, run("tabular").split("\nLFR\n"))
    assert standard["worst case"] < 30
    assert robust["worst case"] > 60
    assert "HopSkipJump" in robust


def test_lightning_module():
    output = run("lightning_module")
    accuracy, flatness = (
        float(re.search(rf"{name}: ([\d.]+)", output)[1])
        for name in ("accuracy", "mean local flatness")
    )
    assert accuracy > 93
    assert flatness < 20


def test_trades_to_lfr():
    trades, lfr = map(rates, run("trades_to_lfr").split("\nLFR\n"))
    assert trades["worst case"] > 60
    assert lfr["worst case"] > 60


def test_mnist_end_to_end():
    output = run("mnist_end_to_end")
    assert "eps 0.1, norm inf" in output
    assert rates(output)["worst case"] > 60
    assert "images that are right without an attack" in output


def test_cifar10_end_to_end():
    found = rates(run("cifar10_end_to_end"))
    assert list(found) == ["clean", "PGD-40", "Square", "worst case"]
    assert found["worst case"] > 10  # that of chance, after half a minute


def test_foreign_weights():
    output = run("foreign_weights")
    assert rates(output)["clean"] > 90
    assert rates(output)["worst case"] < 80  # trained without a defence
    assert "images that are right without an attack" in output


def test_robustbench_finetune():
    try:
        import art_lfr.robustbench  # noqa: F401
    except ImportError as error:
        pytest.skip(f"RobustBench cannot be imported: {error}")
    output = run("robustbench_finetune")
    assert "non-zero input gradients: yes" in output
    assert rates(output)["worst case"] > 40


def test_huggingface_images():
    found = rates(run("huggingface_images"))
    assert found["clean"] > 60
    assert found["worst case"] > 40
