"""What the tests of several folders share; `pythonpath` in pyproject.toml lets pytest find it.

Not part of a package `tests`, for the wheel of RobustBench installs one of that name. Fixtures are
in the conftest.py of the folder that uses them.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.nn import functional

from art_lfr.penalties import LossView, Part, Penalty

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

ROOT = Path(__file__).parents[2]
# For tests that compile: older torch takes step hooks from every optimizer, for good, when it does.
TAKES_HOOKS = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.6"),
    reason="this torch.compile takes the hooks from all optimizers of the process",
)


def run_python(
    *arguments: object,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    """A finished process of this Python: `run_python(script, 3)`, `run_python("-m", "art_lfr")`.

    It runs in `folder`, by default the current one, and `environment` is all that it has of
    variables, by default those of this process.
    """
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def printed_by_python(
    *arguments: object,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> str:
    """What such a process prints; the test fails where the process fails."""
    finished = run_python(*arguments, folder=folder, environment=environment, timeout=timeout)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def launcher(size: int) -> list[str]:
    """What stands between `python` and a script or `-m module`, as docs/scale.md has it."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # Without GPUs too: it is what makes `accelerate launch` start several processes at all.
    options = ["--multi_gpu", "--num_processes", str(size), "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return ["-m", "accelerate.commands.launch", *options, "--main_process_port", str(port)]


class Malicious:
    """Runs a command when it is unpickled, which leaves the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def refusal_of(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which `art-lfr` refuses its arguments; it prints nothing else."""
    # Here: where the commands are not installed, other tests run.
    from art_lfr.cli import main

    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == "", printed.out
    assert printed.err.startswith("art-lfr: error: "), printed.err
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


def without_time(line: str) -> str:
    """A line that AutoAttack prints, up to the seconds at its end."""
    return re.split(r"\((?:total time|time attack)", line)[0]


def classifier_around(
    model: nn.Module, input_shape: tuple[int, ...], nb_classes: int, **keywords: Any
) -> PyTorchClassifier:
    """ART's classifier of inputs in [0, 1]; other keywords are those of ART."""
    # Here: tests of the core do not load ART.
    from art.estimators.classification import PyTorchClassifier

    keywords = {
        "loss": nn.CrossEntropyLoss(),
        "clip_values": (0.0, 1.0),
        "device_type": "cpu",
        **keywords,
    }
    return PyTorchClassifier(model, input_shape=input_shape, nb_classes=nb_classes, **keywords)


class Divide(nn.Module):
    """x / divisor: puts inputs in [0, divisor] on [0, 1]."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor


class Recorder(nn.Module):
    """A network that keeps a copy of every input it is given, and its mode at that time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.inputs: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x.detach().clone())
        self.modes.append(self.training)
        return self.network(x)


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient of each sample's cross entropy in its input; written apart from the package."""
    x = x.detach().clone().requires_grad_(True)
    loss = functional.cross_entropy(model(x), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x, create_graph=create_graph)
    return gradient


def weight_gradient(model: nn.Module, value: Tensor) -> Tensor:
    """The gradient of a value in all parameters, one after the other; 0 where it has none."""
    gradients = torch.autograd.grad(
        value,
        list(model.parameters()),
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return torch.cat([gradient.flatten() for gradient in gradients])


class SquaredLogits(Penalty):
    """A penalty of a user's own, which looks at no ball at all."""

    def parts(self, view: LossView, x: Tensor, y: Tensor, found: object) -> Iterator[Part]:
        yield Part(1.0, view.model(x).square().sum(dim=1))


def pillow_image() -> Any:
    """Pillow's module of images; skips the test where it is not installed."""
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def save_image(
    path: Path, mode: str = "L", colour: Any = 0, size: tuple[int, int] = (4, 6)
) -> None:
    """A file with an image of one colour; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow_image().new(mode, size, colour).save(path)
