"""Which predictions are those of a network that has collapsed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from art_lfr.penalties import Cure, LocalFlatness
from art_lfr.training.epoch import collapse, has_learnt
from art_lfr.training.options import TrainingOptions

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


def test_what_has_learnt_and_not_just_lost_it() -> None:
    y = torch.arange(100) % 10
    chance, half, all_right = torch.zeros(100).long(), y.clone(), y
    half[50:] = 0
    assert not has_learnt([(chance, y)], best=0.0)
    assert has_learnt([(half, y)], best=0.0)
    assert has_learnt([(half, y)], best=0.6)
    assert not has_learnt([(half, y)], best=0.7)  # more than a tenth below
    assert has_learnt([(all_right, y)], best=1.0)
    assert not has_learnt([(half, nn.functional.one_hot(y).float())], best=0.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup_epochs": 2.0}, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]),  # over twice the warm-up
        ({"warmup_epochs": 2.0, "held_epochs": 1.0}, [0, 0, 0.5, 1, 1, 1, 1, 1]),
        ({"warmup_epochs": 2.0, "held_epochs": 0.0}, [1] * 8),
        ({"warmup_epochs": 0.0}, [1] * 8),
    ],
)
def test_when_the_lower_end_is_let_in(options: dict[str, float], expected: list[float]) -> None:
    chosen = TrainingOptions(**options)
    assert [chosen.let_in(epochs) for epochs in range(8)] == expected
    penalty = LocalFlatness(minus_weight=0.5).let_in(0.5)
    assert penalty == LocalFlatness(minus_weight=0.25)
    assert Cure().let_in(0.0) == Cure()
