"""A data set in memory, from arrays in any common form, and which of its images are used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from art_lfr.core.arguments import Array, check_integer
from art_lfr.core.samples import class_labels
from art_lfr.errors import UsageError

PARTS = ("train", "validation", "test")
# An image with this many channels or fewer in its last axis, and more rows than that, is NHWC.
MOST_CHANNELS = 4
# One wrong label must not take the memory of an output for each number below it.
MOST_CLASSES = 100_000


def choose(
    sizes: Mapping[str, int],
    *,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> dict[str, tuple[str, slice]]:
    """For each part of the result, the part of the set that it is taken from, and which images.

    `sizes` has the number of images of each part of the set. Of the test images the first `test`
    are taken. Validation images are the first `validation` of the set's own; where it has none,
    the last `validation` training images, which are then not trained on. Of the training images
    that remain, the first `train` are taken. None takes all.

    Raises TypeError or ValueError for a number that is no integer, too low, or more than there is.
    """
    check_integer("train", train, low=1, optional=True)
    check_integer("validation", validation, low=0, optional=True)
    check_integer("test", test, low=0, optional=True)
    remaining = sizes["train"]
    chosen: dict[str, tuple[str, slice]] = {}
    if validation and not sizes["validation"]:
        if remaining == 0:
            raise UsageError(
                f"validation is {validation}, of a set without training and validation images; "
                "allowed: None"
            )
        _check_enough("validation", validation, remaining - 1, "one less than there are to train")
        chosen["validation"] = ("train", slice(remaining - validation, remaining))
        remaining -= validation
    else:
        chosen["validation"] = ("validation", _first("validation", validation, sizes["validation"]))
    chosen["train"] = ("train", _first("train", train, remaining))
    chosen["test"] = ("test", _first("test", test, sizes["test"]))
    return chosen


def _first(name: str, count: int | None, available: int) -> slice:
    _check_enough(name, count or 0, available, "as many as there are")
    return slice(0, available if count is None else count)


def _check_enough(name: str, count: int, most: int, why: str) -> None:
    if count > most:
        raise UsageError(f"{name} is {count}; allowed: at most {most} images, {why}")


def as_images(name: str, x: Array) -> Array:
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
    images: Array = np.ascontiguousarray(x, dtype=np.float32)
    if x.dtype == np.uint8:  # then `images` is a copy
        scale_bytes(name, images)
    return images


def scale_bytes(name: str, images: Array) -> None:
    """Divide images of bytes by 255, in place; ValueError where they have 0 and 1 only."""
    if images.max() == 1:
        raise UsageError(
            f"{name} has bytes of 0 and 1 only, which would be all but black as parts of 255; "
            "allowed: bytes in 0 to 255, or floats in [0, 1]"
        )
    images /= np.float32(255)


def as_labels(name: str, y: Array, count: int) -> Array:
    """Integer labels of shape (N,), from indices or one-hot rows; ValueError for anything else."""
    labels: Array = class_labels(name, y, count).numpy()
    if labels.max() >= MOST_CLASSES:
        raise UsageError(
            f"{name} has the label {labels.max()}; allowed: below {MOST_CLASSES}, as a network "
            "has an output for each class"
        )
    return labels


@dataclass(frozen=True)
class ImageData:
    """Images x of shape (N, C, H, W), float32, and index labels y of shape (N,), int64.

    `bounds` are those of valid images. A part that a data set lacks has arrays of length 0.
    `classes` names the classes in the order of their indices, where the source has names.
    """

    name: str
    x_train: Array
    y_train: Array
    x_validation: Array
    y_validation: Array
    x_test: Array
    y_test: Array
    bounds: tuple[float, float] = (0.0, 1.0)
    classes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all images and labels and their shapes, in this order and split.

        It names in a result the very numbers that were used: equal digests mean equal arrays on
        any machine. The names of the set and its classes do not count. Computed once.
        """
        digest = hashlib.sha256()
        for part in PARTS:
            for letter, dtype in (("x", "<f4"), ("y", "<i8")):
                values = getattr(self, f"{letter}_{part}")
                digest.update(f"{letter}_{part} {values.shape}".encode())
                plain = np.ascontiguousarray(values, dtype=dtype).reshape(-1)
                digest.update(plain.view(np.uint8).data)
        return digest.hexdigest()

    def take(
        self, *, train: int | None = None, validation: int | None = None, test: int | None = None
    ) -> ImageData:
        """The first images of each part, as many as said, as views of the arrays; None takes all.

        Where the set has no validation images, the last `validation` training images become them
        and are not trained on. Raises ValueError for more than there are.
        """
        sizes = {part: len(getattr(self, f"y_{part}")) for part in PARTS}
        arrays: dict[str, Any] = {}
        chosen = choose(sizes, train=train, validation=validation, test=test)
        for part, (source, images) in chosen.items():
            for letter in ("x", "y"):
                arrays[f"{letter}_{part}"] = getattr(self, f"{letter}_{source}")[images]
        return replace(self, **arrays)


def with_validation(data: ImageData, count: int) -> ImageData:
    """The data with its last `count` training images reserved for validation.

    Raises ValueError where there are validation images already, or where none would remain to
    train on.
    """
    check_integer("count", count, low=1)
    if len(data.y_validation):
        raise UsageError(
            f"data is {data.name}, which has {len(data.y_validation)} validation images; allowed: "
            "a data set without"
        )
    if count >= len(data.y_train):
        raise UsageError(
            f"count is {count}; allowed: at most {len(data.y_train) - 1}, one less than the "
            "training images"
        )
    return data.take(validation=count)


def assemble(
    name: str, parts: Mapping[str, tuple[Array, Array]], classes: tuple[str, ...] = ()
) -> ImageData:
    """An `ImageData` of float32 images and int64 labels, by part; a part left out is empty.

    Raises ValueError where the parts have images of different shapes.
    """
    if not parts:
        raise UsageError(f"{name} gives no image; allowed: limits that leave at least one")
    first = "train" if "train" in parts else next(iter(parts))
    images, labels = parts[first]
    arrays: dict[str, Any] = {}
    for part in PARTS:
        x, y = parts.get(part, (images[:0], labels[:0]))
        if x.shape[1:] != images.shape[1:]:
            raise UsageError(
                f"x_{part} has images of shape {x.shape[1:]}; allowed: {images.shape[1:]}, as in "
                f"x_{first}"
            )
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x, y
    return ImageData(name=name, classes=classes, **arrays)
