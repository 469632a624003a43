"""Digits and small ART classifiers that the tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from lfr_testing import classifier_around
from torch import nn

from art_lfr.data import digits

torch.set_num_threads(1)
Array = npt.NDArray[Any]


class Data(NamedTuple):
    x: Array
    y: Array
    x_test: Array
    y_test: Array

    @property
    def one_hot(self) -> Array:
        return np.eye(10, dtype=np.float32)[self.y]


@pytest.fixture(scope="session")
def data() -> Data:
    """600 digits to train on and 200 to validate on, read-only."""
    found = digits()
    arrays = found.x_train[:600], found.y_train[:600], found.x_test[:200], found.y_test[:200]
    for array in arrays:
        array.flags.writeable = False
    return Data(*arrays)


def network(*, batch_norm: bool = True, dropout: float = 0.1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8) if batch_norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


@pytest.fixture
def make_classifier() -> Callable[..., PyTorchClassifier]:
    """Maker of a classifier for digits; the same seed gives the same weights."""

    def make(
        seed: int = 0,
        *,
        batch_norm: bool = True,
        dropout: float = 0.1,
        lr: float = 0.05,
        optimizer: bool = True,
        model: nn.Module | None = None,
        loss: nn.Module | None = None,
        **keywords: Any,
    ) -> PyTorchClassifier:
        torch.manual_seed(seed)
        model = model or network(batch_norm=batch_norm, dropout=dropout)
        return classifier_around(
            model,
            nb_classes=10,
            loss=loss or nn.CrossEntropyLoss(),
            optimizer=torch.optim.SGD(model.parameters(), lr, momentum=0.9) if optimizer else None,
            **{"input_shape": (1, 8, 8), **keywords},
        )

    return make


@pytest.fixture
def weights() -> Callable[[PyTorchClassifier], dict[str, torch.Tensor]]:
    """A copy of a classifier's weights and buffers."""

    def copy(classifier: PyTorchClassifier) -> dict[str, torch.Tensor]:
        return {k: v.clone() for k, v in classifier.model.state_dict().items()}

    return copy


@pytest.fixture
def same() -> Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], bool]:
    """Whether two sets of weights are bit-identical."""

    def compare(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
        return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

    return compare
