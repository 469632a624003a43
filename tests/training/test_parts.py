"""The parts of a batch, and which process takes them."""

from __future__ import annotations

import pytest

from art_lfr.core.processes import Processes
from art_lfr.training.batches import parts_of


@pytest.mark.parametrize("largest", [1, 2, 3, 16, 1000])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("samples", [1, 2, 3, 5, 31, 64])
def test_parts_cover_the_batch_evenly(samples: int, largest: int, processes: int) -> None:
    parts = parts_of(samples, largest, processes)
    rows = [row for part in parts for row in range(part.start, part.stop)]
    assert rows == list(range(samples))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1
    # BatchNorm needs two samples, so that parts of "at most 2" can have a third.
    assert max(sizes) <= max(largest, 3 if largest > 1 else 1)
    assert min(sizes) >= min(samples, 1 if largest == 1 else 2)
    if largest > 1 and samples >= 2 * processes:
        assert len(parts) >= processes


def test_examples() -> None:
    assert parts_of(64, 1000, 1) == [slice(0, 64)]
    assert parts_of(65, 32, 1) == [slice(0, 22), slice(22, 44), slice(44, 65)]
    assert parts_of(2, 8, 3) == [slice(0, 2)]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_each_part_has_one_process(size: int, count: int) -> None:
    taken = []
    for rank in range(size):
        processes = Processes()
        processes.rank, processes.size = rank, size
        taken += processes.share_of(count)
    assert taken == list(range(count))
