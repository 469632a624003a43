"""Stand-ins for the fixtures of ART's own test tree, for the draft test in docs/upstream.

test_upstream_draft.py copies this to a conftest.py. The images are scikit-learn's digits in MNIST's
shape, so that nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import torch
from art.data_generators import PyTorchDataGenerator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

Part: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any]]
BATCH_SIZE = 16  # ART's default_batch_size


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    config.addinivalue_line("markers", "skip_framework(*frameworks): not run on these")


@pytest.fixture(scope="session")
def framework() -> str:
    return "pytorch"


@pytest.fixture(autouse=True)
def _skip_by_framework(request: pytest.FixtureRequest, framework: str) -> None:
    marker = request.node.get_closest_marker("skip_framework")
    if marker is not None and {framework, "dl_frameworks"} & set(marker.args):
        pytest.skip(f"not for {framework}")


@pytest.fixture(scope="session")
def get_default_mnist_subset() -> tuple[Part, Part]:
    """1,000 images to train on, 100 to test on; labels one-hot."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))[:1100]
    large = np.kron(digits.images[order] / 16, np.ones((3, 3)))
    x = np.pad(large, ((0, 0), (2, 2), (2, 2)))[:, None].astype(np.float32)
    y = np.eye(10, dtype=np.float32)[digits.target[order]]
    return (x[:1000], y[:1000]), (x[1000:], y[1000:])


@pytest.fixture
def image_data_generator(
    get_default_mnist_subset: tuple[Part, Part],
) -> Callable[[], PyTorchDataGenerator]:
    x, y = get_default_mnist_subset[0]

    def make() -> PyTorchDataGenerator:
        loader = DataLoader(
            TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), BATCH_SIZE, shuffle=True
        )
        return PyTorchDataGenerator(loader, size=len(x), batch_size=BATCH_SIZE)

    return make
