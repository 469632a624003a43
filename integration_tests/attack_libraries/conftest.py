"""A network trained with LFR, and what the tests of all attack libraries do with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from lfr_testing import classifier_around
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.data import digits
from art_lfr.models import digits_cnn

torch.set_num_threads(1)
Array = npt.NDArray[Any]


class Scaled(nn.Module):
    """A network for [0, 1] on inputs that start at `low` and are `width` wide."""

    def __init__(self, network: nn.Module, low: float, width: float) -> None:
        super().__init__()
        self.network, self.low, self.width = network, low, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network((x - self.low) / self.width)


def around(
    model: nn.Module, *, low: float = 0.0, width: float = 1.0, **keywords: Any
) -> PyTorchClassifier:
    """A classifier for [low, low + width] around a network for it."""
    keywords = {
        "input_shape": (1, 8, 8),
        "nb_classes": 10,
        "clip_values": (low, low + width),
        "optimizer": torch.optim.SGD(model.parameters(), 0.01),
        **keywords,
    }
    return classifier_around(model, **keywords)


@pytest.fixture(scope="session")
def classifier_of() -> Callable[..., PyTorchClassifier]:
    return around


@pytest.fixture(scope="session")
def scaled() -> type[Scaled]:
    return Scaled


@pytest.fixture(scope="session")
def robust() -> nn.Module:
    """A network for digits trained with LFR, with BatchNorm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(1), *digits_cnn())
    classifier = around(model, optimizer=torch.optim.Adam(model.parameters(), 4e-3))
    data = digits()
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, eps=0.1, max_iter=2, monitor_samples=1, verbose=False
    )
    trainer.fit(data.x_train, data.y_train, nb_epochs=2, batch_size=64)
    return model


@pytest.fixture(scope="session")
def sample() -> tuple[Array, Array]:
    """Four digits, read-only."""
    data = digits()
    x, y = data.x_test[:4], data.y_test[:4]
    x.flags.writeable = y.flags.writeable = False
    return x, y


@pytest.fixture(scope="session")
def images(sample: tuple[Array, Array]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same digits as tensors."""
    return torch.tensor(sample[0]), torch.tensor(sample[1])


@contextlib.contextmanager
def _preserved(model: nn.Module, *attacks: Any) -> Iterator[None]:
    """Fail where a network, its flags and gradients, or a torchattacks object has changed."""
    layer = model[1]
    model.train()
    model[0].eval()
    layer.weight.requires_grad_(False)
    layer.bias.grad = torch.ones_like(layer.bias)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    flags, buffers = _flags(model), list(model.buffers())
    objects = [dict(vars(attack)) for attack in attacks]
    yield
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert _flags(model) == flags
    assert all(a is b for a, b in zip(model.buffers(), buffers, strict=True))
    assert torch.equal(layer.bias.grad, torch.ones_like(layer.bias))
    layer.weight.requires_grad_(True)
    layer.bias.grad = None
    for attack, kept in zip(attacks, objects, strict=True):
        for name in ("model", "device", "attack_mode", "targeted", "_normalization_applied"):
            assert vars(attack)[name] is kept[name], name


def _flags(model: nn.Module) -> list[list[Any]]:
    return [
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [id(parameter.grad) for parameter in model.parameters()],
    ]


@pytest.fixture(scope="session")
def preserved() -> Callable[..., contextlib.AbstractContextManager[None]]:
    return _preserved
