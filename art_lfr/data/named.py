"""Data by what the command line takes for --data: a name, a .npz file or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from art_lfr.data.archive import load_npz
from art_lfr.data.folder import load_folder
from art_lfr.data.image_data import ImageData
from art_lfr.data.torchvision import SOURCES, load_torchvision
from art_lfr.errors import UsageError

NAMES = ("digits", *SOURCES)
DIGITS_TEST = 450
DIGITS_VALIDATION = 150


def load(
    name: str | Path,
    *,
    root: str | Path | None = None,
    download: bool = True,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> ImageData:
    """Labelled images in [0, 1] by name or path; see `digits`, `load_torchvision` and the others.

    `name` is one of `NAMES`, a path ending in .npz, or a folder with train/<class>/ and images (a
    folder that has one of the names: "./mnist"). `root` and `download` are for the sets of
    torchvision. `train`, `validation` and `test` say how many images to take, as in
    `ImageData.take`: the first of each part, and for validation the last training images where the
    set has none of its own.

    Raises ValueError for another name, and what the readers of each kind raise.
    """
    limits: dict[str, Any] = {"train": train, "validation": validation, "test": test}
    check_data_name("name", name)
    if name == "digits":
        return digits().take(**limits)
    if isinstance(name, str) and name in SOURCES:
        return load_torchvision(name, root, download=download, **limits)
    if str(name).endswith(".npz"):
        return load_npz(name, **limits)
    return load_folder(name, **limits)


def check_data_name(parameter: str, name: object) -> None:
    """Raise ValueError unless `load` takes the name; a .npz file need not be there."""
    if isinstance(name, (str, Path)) and (
        name in NAMES or str(name).endswith(".npz") or (str(name) and Path(name).is_dir())
    ):
        return
    raise UsageError(
        f"{parameter} is {str(name)!r}; allowed: {', '.join(NAMES)}, the path of a .npz file, or a "
        "folder with train/<class>/ and images"
    )


def digits(seed: int = 0) -> ImageData:
    """scikit-learn's 1,797 handwritten digits, (N, 1, 8, 8) in [0, 1]; nothing is downloaded.

    `seed` fixes the shuffled split: 450 for test, 150 for validation, 1,197 for training.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    order = np.random.default_rng(seed).permutation(len(loaded.images))
    x = (loaded.images[order, None] / 16.0).astype(np.float32)
    y = loaded.target[order].astype(np.int64)
    held_out = DIGITS_TEST + DIGITS_VALIDATION
    return ImageData(
        name="digits",
        x_train=x[held_out:],
        y_train=y[held_out:],
        x_validation=x[DIGITS_TEST:held_out],
        y_validation=y[DIGITS_TEST:held_out],
        x_test=x[:DIGITS_TEST],
        y_test=y[:DIGITS_TEST],
    )
