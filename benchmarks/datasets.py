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
import torch
from torch import nn

from art_lfr.data import digits
from art_lfr.models import digits_cnn, narrow_resnet, small_cnn

Array = npt.NDArray[Any]


def _narrow_resnet(seed: int | None = None) -> nn.Module:
    # defaults.py calls it without a seed, after torch.manual_seed.
    return narrow_resnet(torch.initial_seed() if seed is None else seed)


MODELS = {"digits": digits_cnn, "mnist": small_cnn, "cifar10": _narrow_resnet}


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
