"""The tables and figures of a comparison, from results that are made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
import torch

from art_lfr.comparison.plan import Comparison
from art_lfr.comparison.results import Results, seconds_in_words, table
from art_lfr.storage.records import pack

Maker: TypeAlias = Callable[..., Comparison]
IMAGES = 40


def made_up(comparison: Comparison, rates: dict[str, float]) -> Results:
    """Results in which a method is right on the first so many images."""
    runs = []
    for run in comparison.runs():
        if run.method not in rates:
            continue
        right = np.arange(IMAGES) < rates[run.method] * IMAGES
        accuracy = {"clean": 1.0, "PGD-40": float(right.mean()), "worst case": float(right.mean())}
        epochs = run.settings["epochs"]
        runs.append(
            {
                "method": run.method,
                "seed": run.seed,
                "split": run.split,
                "settings": run.settings,
                "data": {"name": "digits", "train": 100},
                "judged": {"images": [0, IMAGES]},
                "accuracy": accuracy,
                "correct": {"worst case": pack(torch.from_numpy(right))},
                "flatness": {"mean": 2.0},
                "times": [{"epoch": epochs, "cpu_seconds": 10.0 * epochs}],
                "masking": {"a": {"verdict": "pass"}, "b": {"verdict": "warn"}},
            }
        )
    runs[-1]["masking"] = {"a": {"verdict": "fail"}}
    return Results(comparison, runs)


def test_table_compares_with_the_better_baseline(make_comparison: Maker) -> None:
    plan = make_comparison(masking_images=10)
    found = table(made_up(plan, {"AT": 0.5, "AT wide": 0.6, "AT long": 0.9, "LFR": 0.8}))
    row = found.set_index("method").loc["LFR"]
    # At equal epochs "AT wide" is the better one; "AT long" takes longer than LFR.
    assert row["against AT"].startswith("+20.0")
    assert row["against AT"].endswith("ahead")
    assert row["at equal time"].startswith("+20.0")
    assert row["masking"] == "3 of 4 pass"
    assert found.set_index("method").loc["AT", "against AT"] == ""
    assert found.set_index("method").loc["AT", "masking"] == "4 of 4 pass"


def test_the_baseline_is_the_better_one_on_the_runs_that_are_shared(make_comparison: Maker) -> None:
    results = made_up(make_comparison(), {"AT": 0.5, "AT wide": 0.6, "LFR": 0.8})
    right = np.ones(IMAGES, bool)
    for run in results.runs:  # the narrower one is better on average, thanks to seed 1
        if run["method"] == "AT" and run["seed"] == 1:
            run["accuracy"]["worst case"], run["correct"]["worst case"] = (
                1.0,
                pack(torch.from_numpy(right)),
            )
    assert results.baseline("LFR", equal_time=False) == "AT"
    results.runs = [r for r in results.runs if r["method"] != "LFR" or r["seed"] == 0]
    assert results.baseline("LFR", equal_time=False) == "AT wide"


def test_a_training_that_was_stopped_does_not_count_as_a_quick_one(make_comparison: Maker) -> None:
    results = made_up(make_comparison(), {"AT": 0.5, "LFR": 0.8})
    whole = results.seconds("LFR")
    stopped = next(run for run in results.runs if run["method"] == "LFR")
    stopped["times"] = [{"epoch": 1, "cpu_seconds": 0.1}]
    assert results.seconds("LFR") < whole
    stopped["stopped"] = "the loss is inf"
    assert results.seconds("LFR") == whole


def test_text_fits_into_a_narrow_terminal(make_comparison: Maker) -> None:
    results = made_up(make_comparison(masking_images=10), {"AT": 0.5, "LFR": 0.8})
    narrow, wide = (results.shown().to_text(width) for width in (80, 200))
    assert max(map(len, narrow.splitlines())) <= 80
    for column in ("method", "runs", "clean", "worst case", "core seconds", "against AT"):
        assert column in narrow.splitlines()[3]
    assert "Left out, as the terminal is too narrow: epochs, PGD-40, flatness" in narrow
    assert "Left out" not in wide
    assert "masking" in wide
    assert "Left out" not in results.to_markdown()


def test_short_trainings_have_a_decimal() -> None:
    assert [seconds_in_words(s) for s in (0.44, 9.94, 9.96, 123.4)] == ["0.4", "9.9", "10", "123"]


def test_figure_shows_the_mean_of_the_runs(make_comparison: Maker) -> None:
    pytest.importorskip("matplotlib")
    from art_lfr.comparison.results import time_figure

    results = made_up(make_comparison(snapshots=1), {"AT": 0.5, "LFR": 0.8})
    lfr = [run for run in results.runs if run["method"] == "LFR"]
    assert len(lfr) > 1
    for number, run in enumerate(lfr):
        rates = {1: 0.2 + 0.1 * number, 2: 0.6}
        run["times"] = [{"epoch": e, "cpu_seconds": 10.0 * e + number} for e in rates]
        run["snapshots"] = [{"epoch": e, "accuracy": {"worst case": r}} for e, r in rates.items()]
    drawn = {c.get_label(): c.lines[0] for c in time_figure(results).axes[0].containers}
    np.testing.assert_allclose(drawn["AT"].get_ydata(), [50.0])
    shift = np.mean(range(len(lfr)))
    np.testing.assert_allclose(drawn["LFR"].get_xdata(), [10 + shift, 20 + shift])
    np.testing.assert_allclose(drawn["LFR"].get_ydata(), [20 + 10 * shift, 60.0])
    lfr[-1].update(stopped="the loss is inf", snapshots=[])  # the others still make a line
    (_, line) = (c.lines[0] for c in time_figure(results).axes[0].containers)
    np.testing.assert_allclose(line.get_xdata(), [10 + shift - 0.5, 20 + shift - 0.5])


def test_figure_of_a_run_that_stopped_before_its_first_snapshot(make_comparison: Maker) -> None:
    pytest.importorskip("matplotlib")
    from art_lfr.comparison.results import time_figure

    results = made_up(make_comparison(snapshots=1), {"AT": 0.5, "LFR": 0.8})
    for run in results.runs:
        run["snapshots"] = []
    assert len(time_figure(results).axes[0].get_legend().get_texts()) == 2


def test_table_shows_where_the_method_is_behind(make_comparison: Maker) -> None:
    results = made_up(make_comparison(), {"AT": 0.8, "LFR": 0.5})
    row = table(results).set_index("method").loc["LFR"]
    assert row["against AT"].startswith("-30.0")
    assert row["against AT"].endswith("behind")
    text = results.to_markdown()
    assert "8 of 16 runs" in text
    assert "| LFR" in text
    assert "\\toprule" in results.to_latex()
