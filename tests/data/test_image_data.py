"""Labelled images: parts, slices of them, images held out, the check sum."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from art_lfr.data import ImageData, with_validation


def labelled(train: int = 20, validation: int = 0, test: int = 6) -> ImageData:
    """Images of which each holds its own number, which is its label too."""

    def part(start: int, count: int) -> tuple[Any, Any]:
        y = np.arange(start, start + count)
        x = np.broadcast_to(y[:, None, None, None] / 100, (count, 1, 3, 3))
        return x.astype(np.float32), y.astype(np.int64)

    parts = [part(0, train), part(50, validation), part(80, test)]
    return ImageData("numbers", *[array for pair in parts for array in pair])


def test_the_last_training_images_are_held_out() -> None:
    data = with_validation(labelled(), 5)
    np.testing.assert_array_equal(data.y_train, range(15))
    np.testing.assert_array_equal(data.y_validation, range(15, 20))
    np.testing.assert_array_equal(
        data.x_validation[:, 0, 0, 0], np.float32(data.y_validation / 100)
    )
    assert len(data.y_test) == 6
    with pytest.raises(ValueError, match="count is 20; allowed: at most 19"):
        with_validation(labelled(), 20)
    with pytest.raises(ValueError, match="count is 0; allowed: an integer >= 1"):
        with_validation(labelled(), 0)
    with pytest.raises(ValueError, match="numbers, which has 4 validation images"):
        with_validation(labelled(validation=4), 2)


def test_the_first_images_of_each_part() -> None:
    data = labelled().take(train=3, validation=4, test=2)
    np.testing.assert_array_equal(data.y_train, range(3))
    np.testing.assert_array_equal(data.y_validation, range(16, 20))
    np.testing.assert_array_equal(data.y_test, [80, 81])
    own = labelled(validation=5).take(validation=2, test=0)
    np.testing.assert_array_equal(own.y_validation, [50, 51])
    assert (len(own.y_train), len(own.y_test)) == (20, 0)
    whole = labelled(validation=5)
    assert whole.take().digest == whole.digest


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"train": 21}, "train is 21; allowed: at most 20"),
        ({"train": 16, "validation": 5}, "train is 16; allowed: at most 15"),
        ({"validation": 20}, "validation is 20; allowed: at most 19"),
        ({"test": 7}, "test is 7; allowed: at most 6"),
        ({"train": 0}, "train is 0; allowed: an integer >= 1"),
        ({"test": -1}, "test is -1; allowed: an integer >= 0"),
    ],
)
def test_more_images_than_there_are(limits: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        labelled().take(**limits)


def test_the_digest_is_that_of_the_arrays() -> None:
    data = labelled()
    assert data.digest == labelled().digest
    assert len(data.digest) == 64
    assert dataclasses.replace(data, name="other").digest == data.digest
    moved = data.x_test.copy()
    moved[0, 0, 0, 0] += 1e-6
    others = [
        dataclasses.replace(data, x_test=moved),
        dataclasses.replace(data, y_test=data.y_test + 1),
        dataclasses.replace(data, x_test=data.x_test.reshape(6, 1, 1, 9)),
        with_validation(data, 1),
    ]
    assert len({data.digest, *[other.digest for other in others]}) == 5
    swapped = dataclasses.replace(data, x_train=data.x_train.astype(">f4"))
    assert swapped.digest == data.digest
