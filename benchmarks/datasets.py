"""Training data of the experiments, split into a part to train on and a part to choose on.

The test images of no data set are read here.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from art_lfr.data import digits
from art_lfr.models import digits_cnn, small_cnn

Array = npt.NDArray[Any]


def narrow_resnet() -> nn.Module:
    """A ResNet with BatchNorm for CPU runs: 16, 32, 64 channels, one block each, 32x32 inputs."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        _Block(16, 16, 1),
        _Block(16, 32, 2),
        _Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Any) -> Any:
        return (self.body(x) + self.shortcut(x)).relu()


MODELS = {"digits": digits_cnn, "mnist": small_cnn, "cifar10": narrow_resnet}


def load(name: str, directory: Path, train: int | None, validation: int) -> tuple[Array, ...]:
    """x_train, y_train, x_validation, y_validation of `digits`, `mnist` or `cifar10`.

    The last `validation` training images are held out; of the others the first `train` are used.
    """
    if name == "digits":
        data = digits()
        x = np.concatenate([data.x_train, data.x_validation])
        y = np.concatenate([data.y_train, data.y_validation])
    elif name == "mnist":
        with np.load(directory / "mnist.npz") as file:
            x = (file["x_train"][:, None] / 255).astype(np.float32)
            y = file["y_train"].astype(np.int64)
    else:
        x, y = _cifar10(directory / "cifar10_jpeg.npz", train or math.inf, validation)
    first = x[:-validation][: train or len(x)]
    return first, y[: len(first)], x[-validation:], y[-validation:]


def _cifar10(path: Path, train: float, validation: int) -> tuple[Array, Array]:
    from PIL import Image

    with np.load(path) as file:
        jpeg, offsets = file["train_jpeg"], file["train_offsets"]
        labels = file["train_labels"].astype(np.int64)
    count = len(labels)
    # Only what is used is decoded; the validation images are the last ones.
    used = [i for i in range(count) if i < train or i >= count - validation]
    images = [
        np.asarray(Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes())))
        for i in used
    ]
    return (np.stack(images).transpose(0, 3, 1, 2) / 255).astype(np.float32), labels[used]
