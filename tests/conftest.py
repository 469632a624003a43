"""Small networks and batches that the tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from placing import PlacedOn
from torch import Tensor, nn

torch.set_num_threads(1)
# Nothing here depends on the machine's speed, nor differs from run to run.
settings.register_profile("art_lfr", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("art_lfr")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="where core, penalties, loss, training and measure are tested",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Already here: some files of tests make tensors as they are read.
    name = config.getoption("--device")
    if name != "cpu":
        if not torch.cuda.is_available():
            raise pytest.UsageError(f"--device is {name!r}; allowed: cpu, for torch finds no GPU")
        # With it convolutions have three digits, and the tests look at more.
        torch.backends.cudnn.allow_tf32 = False
        mode = PlacedOn(device_of(config))
        mode.__enter__()
        config.add_cleanup(lambda: mode.__exit__(None, None, None))


def device_of(config: pytest.Config) -> torch.device:
    return torch.zeros(1, device=config.getoption("--device")).device  # with its number


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where tests make their models and data; see `PlacedOn`."""
    return device_of(request.config)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def smooth() -> Callable[..., nn.Sequential]:
    """Maker of a strongly curved float64 network on flat features, without random layers."""

    def make(features: int = 6, classes: int = 3, dropout: float = 0.0) -> nn.Sequential:
        network = nn.Sequential(
            nn.Flatten(),
            nn.Linear(features, 16),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(16, 16),
            nn.Softplus(),
            nn.Linear(16, classes),
        ).double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(3.0)
        return network

    return make


@pytest.fixture
def batch() -> Callable[..., tuple[Tensor, Tensor]]:
    """Maker of inputs in [0, 1] and labels."""

    def make(
        *shape: int, classes: int = 3, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)
        return x, torch.randint(classes, shape[:1], generator=generator)

    return make
