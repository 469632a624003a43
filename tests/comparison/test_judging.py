"""What is kept of a judgement: one bit for each image."""

from __future__ import annotations

import numpy as np
import pytest

from art_lfr.comparison.judging import pack, unpack


@pytest.mark.parametrize("count", [1, 8, 13, 450])
def test_packed_booleans_come_back(count: int) -> None:
    correct = np.random.default_rng(count).random(count) < 0.5
    assert (unpack(pack(correct), count) == correct).all()
