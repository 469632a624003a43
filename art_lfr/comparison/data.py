"""The images that the runs of a comparison train on and are judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from art_lfr.comparison.plan import Comparison
from art_lfr.core.arguments import Array
from art_lfr.data import ImageData, digits, load
from art_lfr.errors import UsageError


@dataclass(frozen=True)
class Split:
    """Training images, the judged images, which of their part they are, and a digest of all.

    `digest` is that of `ImageData`, over the training images and the judged part.
    """

    x_train: Array
    y_train: Array
    x: Array
    y: Array
    first: int
    digest: str


def load_split(comparison: Comparison, split: int, directory: Path = Path()) -> Split:
    """The data of one split; ValueError where nothing is left to train on or to judge.

    A .npz file is sought in `directory`, unless its path is absolute.
    """
    c = comparison
    source = str(directory / c.data) if c.data.endswith(".npz") else c.data
    # Images to choose settings on: the test images are not even read.
    test = 0 if c.part == "validation" else c.images[1]
    if c.data == "digits":
        data = _pooled(digits(split)).take(train=c.train, validation=c.validation, test=test)
    else:
        data = load(source, train=c.train, validation=c.validation, test=test)
    x, y = getattr(data, f"x_{c.part}"), getattr(data, f"y_{c.part}")
    first, last = c.images
    x, y = x[first:last], y[first:last]
    if len(x) == 0:
        raise UsageError(
            f"images is {list(c.images)} of {c.part}, which leaves none; allowed: at least one"
        )
    return Split(data.x_train, data.y_train, x, y, first, data.digest)


def _pooled(data: ImageData) -> ImageData:
    """The small set's own validation images join the training images: a plan holds out its own."""
    return replace(
        data,
        x_train=np.concatenate([data.x_train, data.x_validation]),
        y_train=np.concatenate([data.y_train, data.y_validation]),
        x_validation=data.x_validation[:0],
        y_validation=data.y_validation[:0],
    )
