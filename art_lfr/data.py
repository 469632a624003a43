"""Labelled images as float32 arrays: scikit-learn's digits, and a user's own .npz file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

DIGITS_TEST = 450
DIGITS_VALIDATION = 150
# An image with this many channels or fewer in its last axis, and more rows than that, is NHWC.
MOST_CHANNELS = 4


@dataclass(frozen=True)
class ImageData:
    """Images x of shape (N, C, H, W), float32, and index labels y of shape (N,).

    `bounds` are those of valid images. A part that a data set lacks has arrays of length 0.
    """

    name: str
    x_train: Array
    y_train: Array
    x_validation: Array
    y_validation: Array
    x_test: Array
    y_test: Array
    bounds: tuple[float, float] = (0.0, 1.0)


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


def load_npz(path: str | Path) -> ImageData:
    """A user's data from a .npz file with `x_train`, `y_train`, and where wanted others.

    Also read: `x_validation`, `y_validation`, `x_test`, `y_test`. Images of type uint8 are scaled
    by 1/255, others are taken as they are; (N, H, W) gets a channel axis, (N, H, W, C) becomes
    (N, C, H, W). Values outside [0, 1] are for `check_model` and the training to complain about.

    Raises FileNotFoundError where there is no such file, ValueError for anything in it that is
    not as described. Pickled objects are refused.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"data file {str(path)!r} does not exist")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ValueError(
            f"data file {str(path)!r} cannot be read as .npz without pickled objects: {error}"
        ) from error
    missing = {"x_train", "y_train"} - set(arrays)
    if missing:
        raise ValueError(
            f"data file {str(path)!r} has the arrays {', '.join(sorted(arrays)) or 'none'}; "
            f"missing: {', '.join(sorted(missing))}"
        )
    parts: dict[str, Any] = {}
    for part in ("train", "validation", "test"):
        if (f"x_{part}" in arrays) != (f"y_{part}" in arrays):
            raise ValueError(f"data file {str(path)!r} has only one of x_{part} and y_{part}")
        if f"x_{part}" in arrays:
            x = _images(f"x_{part}", arrays[f"x_{part}"])
            y = _index_labels(f"y_{part}", arrays[f"y_{part}"], len(x))
        else:
            x, y = parts["x_train"][:0], parts["y_train"][:0]
        if x.shape[1:] != parts.setdefault("x_train", x).shape[1:]:
            raise ValueError(
                f"x_{part} has images of shape {x.shape[1:]}; allowed: "
                f"{parts['x_train'].shape[1:]}, as in x_train"
            )
        parts[f"x_{part}"], parts[f"y_{part}"] = x, y
    return ImageData(name=path.stem, **parts)


def _images(name: str, x: Array) -> Array:
    """Float32 images of shape (N, C, H, W)."""
    if x.dtype.kind not in "fiu" or x.ndim not in (3, 4) or x.size == 0:
        raise ValueError(
            f"{name} has shape {x.shape} and dtype {x.dtype}; allowed: numbers of shape (N, H, W), "
            "(N, C, H, W) or (N, H, W, C), at least one image"
        )
    if x.dtype != np.uint8 and x.dtype.kind in "iu":
        raise ValueError(f"{name} has dtype {x.dtype}; allowed: uint8 in 0 to 255, or floats")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds NaN or infinite values; allowed: finite values")
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[3] <= MOST_CHANNELS < min(x.shape[1:3]):
        x = np.moveaxis(x, 3, 1)
    scale = np.float32(255 if x.dtype == np.uint8 else 1)
    images: Array = np.ascontiguousarray(x, dtype=np.float32) / scale
    return images


def _index_labels(name: str, y: Array, count: int) -> Array:
    """Integer labels of shape (N,), from indices or one-hot rows."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        y = y.argmax(axis=1)
    if y.dtype.kind not in "fiu" or y.shape != (count,) or (y != y.astype(np.int64)).any():
        raise ValueError(
            f"{name} has shape {y.shape} and dtype {y.dtype} for {count} images; allowed: integer "
            "labels of shape (N,), or one-hot rows"
        )
    labels: Array = y.astype(np.int64)
    if labels.min() < 0:
        raise ValueError(f"{name} has the label {labels.min()}; allowed: 0 and above")
    return labels
