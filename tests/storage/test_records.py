"""JSON files with a check sum, and masks in them: one bit for each image."""

from __future__ import annotations

import pytest
import torch

from art_lfr.storage.records import pack, unpack


@pytest.mark.parametrize("count", [1, 8, 13, 450])
def test_packed_booleans_come_back(count: int) -> None:
    correct = torch.rand(count, generator=torch.Generator().manual_seed(count)) < 0.5
    assert (unpack(pack(correct), count) == correct).all()
