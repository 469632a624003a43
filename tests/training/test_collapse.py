"""Which predictions are those of a network that has collapsed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from art_lfr.training.epoch import collapse

MIXED = torch.arange(8) % 3


def batches(labels: list[int], targets: Tensor = MIXED) -> list[tuple[Tensor, Tensor]]:
    """One class for all of each batch."""
    return [(torch.full((len(targets),), label), targets) for label in labels]


def test_one_class_for_all_is_named() -> None:
    assert (
        collapse(batches([4, 4, 4]), "training")
        == "predicts class 4 for all of 24 training samples"
    )


def test_one_class_for_each_batch_is_a_collapse_too() -> None:
    found = collapse(batches([4, 1, 4]), "training")
    assert found is not None
    assert "one class for all samples of a batch, in each of the last 3 training batches" in found
    other = batches([4, 1, 4])
    other[1][0][5] = 4
    assert collapse(other, "training") is None


@pytest.mark.parametrize("size", [1, 2, 8])
def test_data_sorted_by_class_and_learnt_is_none(size: int) -> None:
    sorted_ones = [(torch.full((size,), c), torch.full((size,), c)) for c in range(10)]
    assert collapse(sorted_ones, "training") is None


def test_ten_samples_are_needed() -> None:
    pair = torch.tensor([0, 1])
    assert collapse(batches([3, 5] * 4, pair), "training") is None
    assert collapse(batches([3, 5] * 5, pair), "training") is not None
    assert collapse(batches([3], torch.arange(9)), "training") is None
    assert collapse(batches([3], torch.arange(10)), "training") is not None
    # Batches of one sample say nothing each, but together.
    singles = [(torch.tensor([3]), torch.tensor([c])) for c in range(10)]
    assert collapse(singles, "training") == "predicts class 3 for all of 10 training samples"
    assert collapse([*singles, (torch.tensor([4]), torch.tensor([4]))], "training") is None
    assert collapse([(pair[:0], pair[:0]), *batches([3, 5] * 5, pair)], "training") is not None
