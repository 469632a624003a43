"""A data set in memory: three parts of labelled images, slices of them, and their checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from art_lfr.core.arguments import Array, check_integer
from art_lfr.data.selection import PARTS, choose
from art_lfr.errors import UsageError


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
        """The first so many images of each part, as views of the arrays; None takes all.

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
    """The data with its last `count` training images held out for validation.

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
    x_train, y_train = parts["train"]
    arrays: dict[str, Any] = {}
    for part in PARTS:
        x, y = parts.get(part, (x_train[:0], y_train[:0]))
        if x.shape[1:] != x_train.shape[1:]:
            raise UsageError(
                f"x_{part} has images of shape {x.shape[1:]}; allowed: {x_train.shape[1:]}, as in "
                "x_train"
            )
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x, y
    return ImageData(name=name, classes=classes, **arrays)
