"""The store of the points that ascents have found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from art_lfr.data import Compose, RandomCrop, random_flip
from art_lfr.errors import UsageError
from art_lfr.training.warm_start import LEVELS, EndPoints

ROWS = torch.tensor([6, 1, 3, 0])


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def perturbed(x: Tensor, eps: float = 0.1) -> Tensor:
    return x + eps * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) - 1)


def test_points_come_back_up_to_one_byte_a_value(x: Tensor) -> None:
    store = EndPoints()
    assert bool(store.of(ROWS, x, 8, None).isnan().all())
    ends = perturbed(x)
    store.keep(ROWS, x, ends, None)
    assert store.steps is not None
    assert store.steps.element_size() == 1
    assert store.steps.shape == (8, 2, 5, 5)
    error = (store.of(ROWS, x, 8, None) - ends).abs().max()
    assert 0 < float(error) <= 0.1 / (2 * LEVELS) + 1e-6
    # Other rows have none, and the order of a batch does not matter.
    assert bool(store.of(torch.tensor([2, 4, 5, 7]), x, 8, None).isnan().all())
    back = store.of(ROWS.flip(0), x.flip(0), 8, None)
    assert torch.equal(back, store.of(ROWS, x, 8, None).flip(0))


@pytest.mark.parametrize("length", [1e-6, 3.0, 400.0])
def test_the_error_is_relative_to_each_samples_own_perturbation(x: Tensor, length: float) -> None:
    """In l2 and l1 single values are far below eps, and during the warm-up all are."""
    store = EndPoints()
    store.of(ROWS, x.double(), 8, None)
    ends = x.double() + length * (perturbed(x) - x).double()
    store.keep(ROWS, x.double(), ends, None)
    error = (store.of(ROWS, x.double(), 8, None) - ends).abs().flatten(1).amax(1)
    largest = (ends - x.double()).abs().flatten(1).amax(1)
    assert bool((error <= largest / (2 * LEVELS) * 1.001).all())


def test_a_perturbation_of_zeros_is_known_and_a_point_of_nan_is_not(x: Tensor) -> None:
    store = EndPoints()
    store.of(ROWS, x, 8, None)
    ends = perturbed(x)
    ends[0], ends[2] = x[0], torch.nan
    store.keep(ROWS, x, ends, None)
    found = store.of(ROWS, x, 8, None)
    assert torch.equal(found[0], x[0])
    assert bool(found[2].isnan().all())
    kept = found[1].clone()
    store.keep(ROWS, x, torch.full_like(x, torch.nan), None)
    assert torch.equal(store.of(ROWS, x, 8, None)[1], kept)


def test_a_point_is_kept_in_the_frame_of_the_original(x: Tensor) -> None:
    store, generator = EndPoints(), torch.Generator().manual_seed(5)
    augment = Compose(RandomCrop(2), random_flip)
    seen, view = augment.with_view(x, generator)
    store.of(ROWS, seen, 8, view)
    ends = perturbed(seen)
    store.keep(ROWS, seen, ends, view)
    # The same view again: the point, but for what lies in the padding.
    again = store.of(ROWS, seen, 8, view)
    assert view is not None
    inside = view.apply(torch.ones_like(x)).bool()
    assert float((again - ends)[inside].abs().max()) < 0.001
    assert torch.equal(again[~inside], seen[~inside])
    # Another view of it: the perturbation moves with the image.
    original = store.of(ROWS, x, 8, None) - x
    other, moved = augment.with_view(x, generator)
    assert moved is not None
    found = store.of(ROWS, other, 8, moved) - other
    torch.testing.assert_close(found, moved.apply(original), atol=1e-6, rtol=0)
    # What the other view leaves out is still known afterwards.
    store.keep(ROWS, other, other + found, moved)
    torch.testing.assert_close(store.of(ROWS, x, 8, None) - x, original, atol=0.002, rtol=0)


class Spoilt:
    """A view that a user has written wrongly."""

    def __init__(self, method: str, result: Callable[[Tensor], Tensor]) -> None:
        self._wrong, self._result = method, result

    def apply(self, x: Tensor) -> Tensor:
        return self._result(x) if self._wrong == "apply" else x

    def undo(self, moved: Tensor, original: Tensor) -> Tensor:
        return self._result(moved) if self._wrong == "undo" else moved


@pytest.mark.parametrize("method", ["apply", "undo"])
@pytest.mark.parametrize(
    ("result", "what"),
    [
        (lambda x: x * torch.nan, "gives NaN or infinity"),
        (lambda x: x[:, :, 1:], r"gives shape \(4, 2, 4, 5\)"),
        (lambda x: x[:1], r"gives shape \(1, 2, 5, 5\)"),
        (lambda x: x.int(), r"gives the type torch\.int32"),
        (lambda x: x.numpy(), "gives a ndarray"),
    ],
)
def test_a_wrong_view_is_refused(
    x: Tensor, method: str, result: Callable[[Tensor], Tensor], what: str
) -> None:
    view, store = Spoilt(method, result), EndPoints()

    def seen_once() -> None:
        store.of(ROWS, x, 8, view)
        store.keep(ROWS, x, perturbed(x), view)

    with pytest.raises(UsageError, match=f"`{method}` of the view that augment returned {what}"):
        seen_once()
