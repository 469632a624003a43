"""Every command and piece of code in the README and in docs/ is run, with small numbers."""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import typer
import yaml
from lfr_testing import ROOT, printed_by_python

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.cli import app
from art_lfr.data import digits
from art_lfr.models import NetworkInfo, digits_cnn, save_network

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p.parent.name != "upstream"),
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Snippet(NamedTuple):
    place: str
    language: str
    text: str


def found_in(page: Path) -> list[Snippet]:
    text = page.read_text()
    return [
        Snippet(f"{page.name}:{text[: match.start()].count(chr(10)) + 2}", match[1], match[2])
        for match in BLOCK.finditer(text)
    ]


def examples_in(file: Path) -> list[Snippet]:
    """The examples of its docstrings."""
    text = file.read_text()
    blocks = re.finditer(r"^( +)Example::\n\n((?:\1    .*\n|\n)+)", text, re.MULTILINE)
    return [Snippet(file.name, "python", textwrap.dedent(match[2])) for match in blocks]


SNIPPETS = [snippet for page in PAGES for snippet in found_in(page)]
EXAMPLES = [e for file in sorted((ROOT / "art_lfr").rglob("*.py")) for e in examples_in(file)]
PYTHON = [s for s in SNIPPETS if s.language == "python"]
COMMANDS = [
    Snippet(s.place, s.language, line)
    for s in SNIPPETS
    if s.language == "bash"
    for line in s.text.replace("\\\n", " ").splitlines()
]
# Commands that are named in running text: `art-lfr evaluate --weights robust.safetensors`.
NAMED = sorted(
    {
        " ".join(m.split())
        for page in PAGES
        for m in re.findall(r"`(art-lfr \w[^`]*)`", page.read_text())
    }
)
# What a reader's numbers are replaced by here, and nothing else is.
SMALLER = {
    "--epochs 5 --train 10000 --minutes 30": "--epochs 1 --train 32 --minutes 0.1",
    "--data digits --output lfr": "--data digits --epochs 1 --train 64 --force --output lfr",
    "--images 200": "--images 2",
    "--clean-floor 0.97": "--clean-floor 0.01",
    "--attacks autoattack,quick,paper": "--attacks quick",
    "--attacks autoattack": "--attacks FGSM",
    "--output results": "--output results --data-dir .",
}


def test_no_snippet_is_overlooked():
    fences = sum(len(re.findall(r"^```", page.read_text(), re.MULTILINE)) for page in PAGES)
    myst = sum(len(re.findall(r"^```{", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * (len(SNIPPETS) + myst)
    assert {s.language for s in SNIPPETS} == {"python", "bash", "yaml", "diff"}
    source = "".join(file.read_text() for file in (ROOT / "art_lfr").rglob("*.py"))
    assert len(EXAMPLES) == source.count("Example::") > 7


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Digits; in the current directory there is mnist.npz, digits in MNIST's shape."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks").symlink_to(ROOT / "networks")
    data = digits()
    large = [
        np.repeat(np.repeat((255 * x[:, 0]).astype(np.uint8), 4, 1), 4, 2)[:, 2:30, 2:30]
        for x in (data.x_train[:64], data.x_test[:16])
    ]
    np.savez(
        "mnist.npz",
        x_train=large[0],
        y_train=data.y_train[:64],
        x_test=large[1],
        y_test=data.y_test[:16],
    )
    return data


@pytest.mark.parametrize("snippet", [*PYTHON, *EXAMPLES], ids=lambda s: s.place)
def test_python(snippet, images, make_classifier):
    if "robustbench" in snippet.text:
        pytest.skip("needs a network of the zoo: run with another by robustbench/test_example.py")
    if "import torchattacks" in snippet.text:
        pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    classifier, second = make_classifier(), make_classifier(seed=1)
    classifier.fit(images.x_train, images.y_train, batch_size=64, nb_epochs=4)
    count = 256 if ".fit(" in snippet.text else 32  # enough to learn from
    x, y = images.x_train[:count], images.y_train[:count]
    if re.search(r"\bmodel\b", snippet.text):  # plain PyTorch
        x, y = torch.tensor(x), torch.tensor(y)
    names = {
        "classifier": classifier,
        "second_classifier": second,
        "trainer": AdversarialTrainerLFRPyTorch(classifier, eps=0.1),
        "model": classifier.model,
        "network": classifier.model.eval(),
        "optimizer": classifier.optimizer,
        "loader": [(x[:16], y[:16]), (x[16:], y[16:])],
        "x": x,
        "y": y,
        "x_val": images.x_train[32:40],
        "y_val": images.y_train[32:40],
        "x_test": images.x_test[:24],
        "y_test": images.y_test[:24],
    }
    exec(compile(snippet.text, snippet.place, "exec"), names)


def test_the_plan(images):
    """That of docs/comparisons.md: every method, for one epoch."""
    (plan,) = [s.text for s in SNIPPETS if s.language == "yaml"]
    (comparison,) = yaml.safe_load(plan)
    comparison |= {"epochs": 1, "images": [0, 4], "splits": [0], "seeds": [0], "masking_images": 4}
    comparison |= {"attacks": ["PGD-40"]}
    Path("plan.yaml").write_text(yaml.safe_dump([comparison]))
    run("art-lfr compare plan.yaml --output results")
    assert Path("results/digits.md").read_text().count("\n| ") == 1 + len(comparison["methods"])


def run(line: str) -> None:
    """The command line as it is written but for SMALLER, by the art-lfr of this interpreter."""
    for large, small in SMALLER.items():
        line = line.replace(large, small)
    words = shlex.split(line)
    assert words[0] == "art-lfr"
    environment = {**os.environ, "COLUMNS": "80"}
    printed_by_python("-m", "art_lfr", *words[1:], environment=environment, timeout=300)


def installs_or_is_run_elsewhere(line: str) -> bool:
    """Whether this is what the project's own checks or another test runs."""
    if line.endswith("&& art-lfr demo"):  # integration_tests/test_demo.py
        return line.startswith("python -m pip install")
    if line.startswith("accelerate launch"):  # integration_tests/training/test_processes.py
        return True
    if "tox run" in line:  # what decides, or an environment that there is
        environment = line.removeprefix("tox run -e ")
        decides = line in (ROOT / ".ci" / "run").read_text()
        return decides or f"[testenv:{environment}]" in (ROOT / "tox.ini").read_text()
    return line.startswith(("python -m venv", "python -m pip install", "pytest", "pre-commit run"))


@pytest.mark.parametrize("snippet", COMMANDS, ids=lambda s: f"{s.place} {s.text[:30]}")
def test_command(snippet, images):
    if installs_or_is_run_elsewhere(snippet.text):
        assert "art-lfr train" not in snippet.text
        return
    if "plan.yaml" in snippet.text:
        pytest.skip("run with the plan of docs/comparisons.md by test_the_plan")
    known = NetworkInfo(classes=10, input_shape=(1, 8, 8), eps=0.1, norm="inf", data="digits")
    for name in ("robust", "lfr", "standard"):
        save_network(f"{name}.safetensors", digits_cnn(), known)
    if "my_nets" in snippet.text:  # a network and images of a reader's own
        Path("my_nets.py").write_text("from art_lfr.models import digits_cnn as MyNet\n")
        torch.save(digits_cnn().state_dict(), "mine.pt")
        np.savez("my.npz", x_test=images.x_test[:16], y_test=images.y_test[:16])
    run(snippet.text)


@pytest.mark.parametrize("line", NAMED)
def test_a_command_in_running_text(line):
    """Command, options and their number of values are those of the command line."""
    words = shlex.split(line)[1:]
    commands = typer.main.get_command(app)
    assert words[0] in commands.commands
    options = {name for p in commands.commands[words[0]].params for name in p.opts}
    given = {word for word in words if word.startswith("--")}
    assert given <= options | {"--help"}
