"""Paired differences between two methods, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from art_lfr.core.arguments import Array
from art_lfr.errors import UsageError

REPLICATES = 2000
# With fewer there is no verdict.
FEWEST_RUNS = 3


class Difference(NamedTuple):
    """A mean difference and its interval, in points; `runs` pairs went into it."""

    mean: float
    low: float
    high: float
    runs: int

    @property
    def verdict(self) -> str:
        """ "ahead": the interval lies above 0; "at or above": above -1 point; "behind": below 0.

        "open": none of these. "too few runs": below 3 the interval knows little of the chance of
        seeds, which is often larger than that of images.
        """
        if self.runs < FEWEST_RUNS:
            return "too few runs"
        if self.low > 0:
            return "ahead"
        if self.low > -1:
            return "at or above"
        return "behind" if self.high < 0 else "open"


def paired_difference(
    first: Sequence[Array],
    second: Sequence[Array],
    splits: Sequence[int],
    seed: int = 0,
    *,
    made: int = 1,
) -> Difference:
    """100 * (mean of first - mean of second), over runs that share seed, split and images.

    Args:
        first, second: For each pair of runs, which images are right, shape (N,), N the same within
            a split.
        splits: The split of each pair: runs of one split are judged on the same images.
        seed: Seed of the bootstrap.
        made: How many comparisons are made: the level of the interval is `level_for(made)`.

    Images are drawn anew within each split, the same ones for all its runs, and pairs of runs are
    drawn anew, so that the interval holds both sources of chance. It is the percentile interval of
    Efron, "Bootstrap methods", 1979, over 2,000 replicates.

    Raises ValueError where there is no pair or shapes differ.
    """
    if not first or not len(first) == len(second) == len(splits):
        raise UsageError(
            f"first has {len(first)} runs, second {len(second)}, splits {len(splits)}; allowed: "
            "as many of each, at least one"
        )
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape:
            raise UsageError(f"shapes {a.shape} and {b.shape} differ; allowed: the same images")
    generator = np.random.default_rng(seed)
    differences = [np.asarray(a, float) - b for a, b in zip(first, second, strict=True)]
    # One row of means for each pair of runs: over all images, then over images drawn anew.
    means = np.empty((len(first), REPLICATES))
    for split in dict.fromkeys(splits):
        rows = [index for index, of in enumerate(splits) if of == split]
        together = np.stack([differences[index] for index in rows])
        count = together.shape[1]
        weights = generator.multinomial(count, np.full(count, 1 / count), REPLICATES)
        # A sum of whole numbers is the same in whatever order a machine adds them.
        means[rows] = together @ weights.T.astype(float) / count
    drawn = generator.integers(len(first), size=(len(first), REPLICATES))
    replicates = 100 * np.take_along_axis(means, drawn, axis=0).mean(axis=0)
    tail = (100 - level_for(made)) / 2
    low, high = np.percentile(replicates, [tail, 100 - tail])
    mean = 100 * np.mean([d.mean() for d in differences])
    # What is 0 but for rounding must not decide between "open" and "behind".
    mean, low, high = (round(float(value), 9) + 0.0 for value in (mean, low, high))
    return Difference(mean, low, high, len(first))


def level_for(made: int) -> float:
    """The level, in per cent, at which so many intervals are right together in 95 of 100 cases.

    That of Bonferroni: whatever the comparisons have to do with each other.
    """
    return 100 - 5 / max(1, made)


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion, inside [0, 1].

    Source: Wilson, "Probable inference", JASA 1927.
    """
    if not 0 <= successes <= count or count == 0:
        raise UsageError(f"successes is {successes} of {count}; allowed: 0 to count, count > 0")
    from scipy.stats import binomtest  # takes a second to import

    low, high = binomtest(successes, count).proportion_ci(method="wilson")
    return float(low), float(high)
