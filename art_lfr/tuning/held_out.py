"""Training images parted into those that a trial trains on and those that judge it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from art_lfr.core.arguments import Array, as_tensor, check_inputs, check_integer, check_labels
from art_lfr.errors import UsageError, WrongTypeError

MOST = 1000


class Data(NamedTuple):
    """What is trained on (`x`, `y`), and what is judged on (`x_held`, `y_held`)."""

    x: Array
    y: Array
    x_held: Array
    y_held: Array


def usual_count(images: int) -> int:
    """How many of so many training images are held out where nothing is said: a fifth, or 1,000."""
    return max(1, min(MOST, images // 5))


def split(x: Array, y: Array, held_out: int | tuple[Array, Array] | None) -> Data:
    """Hold out the last images of (x, y), as many as said, or take a validation set as it is.

    Raises ValueError where no image is left to train on, and for held-out labels that show that
    the data is sorted by label.
    """
    _check("x", x, "y", y)
    if isinstance(held_out, tuple | list):
        if len(held_out) != 2:
            raise WrongTypeError(
                f"held_out has {len(held_out)} parts; allowed: (x, y), or a number"
            )
        _check("held_out", held_out[0], "held_out", held_out[1])
        data = Data(x, y, *held_out)
    else:
        count = usual_count(len(x)) if held_out is None else held_out
        check_integer("held_out", count, low=1)
        if count >= len(x):
            raise UsageError(
                f"held_out is {count} of {len(x)} images; allowed: at most {len(x) - 1}, or (x, y)"
            )
        first = len(x) - count
        data = Data(x[:first], y[:first], x[first:], y[first:])
    trained, held = _classes(data.y), _classes(data.y_held)
    if not held <= trained or (len(held) == 1 < len(trained) and len(data.y_held) >= 10):
        raise UsageError(
            f"held_out has images of {len(held)} class(es), the training images of {len(trained)}: "
            "is y sorted? Allowed: data in random order, with every held-out class trained on"
        )
    return data


def _check(x_name: str, x: Array, y_name: str, y: Array) -> None:
    """Raise unless these are samples and as many finite labels."""
    samples, labels = as_tensor(x_name, x), as_tensor(y_name, y)
    check_inputs(x_name, samples)
    check_labels(y_name, labels, len(samples))
    if not bool(labels.isfinite().all()):
        raise UsageError(f"{y_name} holds NaN or infinite labels; allowed: finite values")


def largest_class(y: Array) -> float:
    """The share of the most frequent label: the accuracy of always giving that one."""
    return float(np.unique(_indices(y), return_counts=True)[1].max() / len(y))


def _classes(y: Array) -> set[int]:
    return {int(label) for label in np.unique(_indices(y))}


def _indices(y: Array) -> Array:
    labels = np.asarray(y)
    return labels.argmax(axis=1) if labels.ndim == 2 and labels.shape[1] > 1 else labels
