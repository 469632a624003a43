"""What a training of a comparison keeps beside its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from art_lfr.comparison.runner import Times


def test_times_that_do_not_reach_the_checkpoint_are_refused(tmp_path: Path) -> None:
    times = Times(tmp_path)
    for epoch in (1, 2):
        times.tick(epoch)
    Times(tmp_path).cut(1)
    with pytest.raises(ValueError, match="reaches epoch 2 where the training is at 3"):
        Times(tmp_path).cut(3)
