"""Intervals of a share and of a paired difference, and the verdict that follows from one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from art_lfr.core.intervals import Difference, level_for, paired_difference, wilson_interval


def test_wilson_interval() -> None:
    for right, count in [(45, 50), (0, 10), (10, 10), (1, 3), (412, 450)]:
        expected = binomtest(right, count).proportion_ci(method="wilson")
        assert wilson_interval(right, count) == pytest.approx(tuple(expected), abs=1e-12)
    with pytest.raises(ValueError, match="successes is 11 of 10"):
        wilson_interval(11, 10)


def test_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    # Many experiments with a known difference of 10 points, images the only source of chance.
    generator = np.random.default_rng(1)
    held = 0
    for trial in range(100):
        difficulty = generator.random((1, 200))
        first = [row < 0.8 for row in difficulty]
        second = [row < 0.7 for row in difficulty]
        found = paired_difference(first, second, [0], seed=trial)
        held += found.low <= 10 <= found.high
        assert found.low <= found.mean <= found.high
    assert 88 <= held <= 100


def test_interval_holds_the_chance_of_runs_too() -> None:
    right, wrong = np.ones(1000, bool), np.zeros(1000, bool)
    # Ten points on the mean, but all from one of ten seeds.
    found = paired_difference([right] + [wrong] * 9, [wrong] * 10, [0] * 10)
    assert found.mean == pytest.approx(10)
    assert found.low == 0
    assert found.high >= 20


def test_an_interval_that_ends_at_zero_is_open_whatever_the_rounding() -> None:
    # 40 images won, 60 lost: the upper end is 0 in whole numbers, not in rounded fractions.
    image = np.arange(700)
    first, second = image >= 60, (image < 60) | (image >= 100)
    found = paired_difference([first], [second], [0])
    assert str(found.high) == "0.0"
    assert found._replace(runs=3).verdict == "open"


def test_pairing_takes_out_what_both_share() -> None:
    generator = np.random.default_rng(0)
    second = [generator.random(500) < 0.5 for _ in range(3)]
    first = [row.copy() for row in second]
    for row in first:
        row[:25] = True
        row[25:] = second[0][25:] if row is first[0] else row[25:]
    found = paired_difference(first, second, [0, 0, 0])
    assert found.high - found.low < 4  # unpaired: about 7 points


def test_many_intervals_hold_together() -> None:
    right = np.arange(200) % 10 < 7
    wider = [paired_difference([right], [~right], [0], made=made) for made in (1, 10)]
    assert wider[1].low < wider[0].low < wider[0].high < wider[1].high
    assert [level_for(made) for made in (0, 1, 10)] == [95, 95, 99.5]


def test_verdicts() -> None:
    assert Difference(2, 0.1, 4, 3).verdict == "ahead"
    assert Difference(1, -0.9, 4, 3).verdict == "at or above"
    assert Difference(-3, -4, -2, 3).verdict == "behind"
    assert Difference(-1, -4, 2, 3).verdict == "open"
    # Seeds often differ by more than an interval over images is wide.
    for runs in (1, 2):
        assert Difference(2, 0.1, 4, runs).verdict == "too few runs"


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="first has 0 runs"):
        paired_difference([], [], [])
    with pytest.raises(ValueError, match="differ"):
        paired_difference([np.ones(3)], [np.ones(4)], [0])
