"""How much of a data set is used, decided before any image of it is read."""

from __future__ import annotations

from collections.abc import Mapping

from art_lfr.core.arguments import check_integer
from art_lfr.errors import UsageError

PARTS = ("train", "validation", "test")


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
    the last so many training images, which are then no training images any more. Of those that
    remain the first `train` are taken. None stands for all there are.

    Raises TypeError or ValueError for a number that is no integer, too low, or more than there is.
    """
    check_integer("train", train, low=1, optional=True)
    check_integer("validation", validation, low=0, optional=True)
    check_integer("test", test, low=0, optional=True)
    remaining = sizes["train"]
    chosen: dict[str, tuple[str, slice]] = {}
    if validation and not sizes["validation"]:
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
