"""Small networks and batches that the tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

torch.set_num_threads(1)
# Nothing here depends on the machine's speed, nor differs from run to run.
settings.register_profile("art_lfr", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("art_lfr")


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
