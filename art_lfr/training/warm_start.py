"""Where the ascent of each training sample has ended, for that of the next epoch to start there.

An ascent of few steps that goes on from epoch to epoch is as good as a longer one that starts anew:
docs/performance.md has the experiment. The idea, for adversarial training: Zheng et al., "Efficient
Adversarial Training with Transferable Adversarial Examples", CVPR 2020.
"""

from __future__ import annotations

import math

from torch import Tensor

from art_lfr.training.batches import Batch


class EndPoints:
    """The points of the samples of one data set, in raw input units.

    Attributes:
        points: One for each sample, the shape of the data; NaN where none was found. None before
            the first batch.
    """

    def __init__(self) -> None:
        self.points: Tensor | None = None

    def of(self, batch: Batch, samples: int | None) -> Tensor:
        """Those of a batch of a data set of so many samples, the shape of the batch."""
        assert samples is not None
        assert batch.rows is not None
        if self.points is None:
            self.points = batch.x.new_full((samples, *batch.x.shape[1:]), math.nan)
        self.points = self.points.to(batch.x.device)  # a checkpoint's are on the CPU
        return self.points[batch.rows]

    def keep(self, batch: Batch, ends: Tensor) -> None:
        """Have the points of a batch anew."""
        assert self.points is not None
        assert batch.rows is not None
        self.points[batch.rows] = ends
