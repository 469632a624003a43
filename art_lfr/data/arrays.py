"""A user's arrays of images and labels in any common form -> (N, C, H, W) and (N,)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from art_lfr.errors import UsageError

# An image with this many channels or fewer in its last axis, and more rows than that, is NHWC.
MOST_CHANNELS = 4


def as_images(name: str, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Float32 images of shape (N, C, H, W) from (N, H, W), (N, C, H, W) or (N, H, W, C).

    uint8 is scaled by 1/255, floats are taken as they are. Raises ValueError for anything else.
    """
    if x.dtype.kind not in "fiu" or x.ndim not in (3, 4) or x.size == 0:
        raise UsageError(
            f"{name} has shape {x.shape} and dtype {x.dtype}; allowed: numbers of shape (N, H, W), "
            "(N, C, H, W) or (N, H, W, C), at least one image"
        )
    if x.dtype != np.uint8 and x.dtype.kind in "iu":
        raise UsageError(f"{name} has dtype {x.dtype}; allowed: uint8 in 0 to 255, or floats")
    if not np.isfinite(x).all():
        raise UsageError(f"{name} holds NaN or infinite values; allowed: finite values")
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[3] <= MOST_CHANNELS < min(x.shape[1:3]):
        x = np.moveaxis(x, 3, 1)
    images: npt.NDArray[Any] = np.ascontiguousarray(x, dtype=np.float32)
    if x.dtype == np.uint8:  # then `images` is a copy
        images /= np.float32(255)
    return images


def as_labels(name: str, y: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Integer labels of shape (N,), from indices or one-hot rows; ValueError for anything else."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all():
        y = y.argmax(axis=1)
    if y.dtype.kind not in "fiu" or y.shape != (count,) or (y != y.astype(np.int64)).any():
        raise UsageError(
            f"{name} has shape {y.shape} and dtype {y.dtype} for {count} images; allowed: integer "
            "labels of shape (N,), or one-hot rows"
        )
    labels: npt.NDArray[Any] = y.astype(np.int64)
    if labels.min() < 0:
        raise UsageError(f"{name} has the label {labels.min()}; allowed: 0 and above")
    return labels
