"""Plans, intervals and tables of a comparison, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from art_lfr.comparison.judging import pack, unpack
from art_lfr.comparison.plan import Comparison, read_plan
from art_lfr.comparison.results import Results
from art_lfr.comparison.tables import table, to_latex, to_markdown
from art_lfr.core.intervals import Difference, paired_difference

PLAN: dict[str, Any] = {
    "name": "small",
    "data": "digits",
    "model": "digits-cnn",
    "eps": 0.1,
    "epochs": 2,
    "seeds": [0, 1],
    "splits": [0, 1],
    "methods": [
        {"name": "AT", "kind": "pgd"},
        {"name": "AT wide", "kind": "pgd", "eps": 1.25},
        {"name": "AT long", "kind": "pgd", "epochs": 5},
        {"name": "LFR", "kind": "lfr", "lam": 0.5},
    ],
}
IMAGES = 40


def write(directory: Path, content: Any) -> Path:
    path = directory / "plan.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def comparison(tmp_path: Path, **changes: Any) -> Comparison:
    return read_plan(write(tmp_path, {**PLAN, **changes}))[0]


def test_runs_are_all_methods_on_all_splits_and_seeds(tmp_path: Path) -> None:
    runs = list(comparison(tmp_path).runs())
    assert len(runs) == len({run.key for run in runs}) == 4 * 2 * 2
    assert {(run.method, run.seed, run.split) for run in runs[:4]} == {
        (name, 0, 0) for name in ("AT", "AT wide", "AT long", "LFR")
    }
    assert {run.settings["epochs"] for run in runs} == {2, 5}


def test_a_method_may_have_fewer_seeds(tmp_path: Path) -> None:
    methods = [{"name": "AT", "kind": "pgd"}, {"name": "LFR", "kind": "lfr", "seeds": [1]}]
    runs = list(comparison(tmp_path, methods=methods).runs())
    assert [(run.method, run.seed) for run in runs if run.split == 0] == [
        ("AT", 0),
        ("AT", 1),
        ("LFR", 1),
    ]
    every = comparison(tmp_path, methods=[methods[0], {**methods[1], "seeds": [0, 1]}])
    assert {run.key for run in runs} < {run.key for run in every.runs()}


@pytest.mark.parametrize(
    ("norm", "of_all", "own", "expected"),
    [
        ("inf", None, {}, 2),  # the trainer's default
        (2, None, {}, None),
        ("inf", 1, {}, None),  # as in the runs that were made before there was a choice
        (2, 3, {}, 3),
        ("inf", 3, {"renew_every": 5}, 5),
        ("inf", None, {"estimator": "exact"}, None),
    ],
)
def test_how_often_the_ascent_renews_its_gradient(
    tmp_path: Path, norm: Any, of_all: int | None, own: dict[str, Any], expected: int | None
) -> None:
    methods = [{"name": "LFR", "kind": "lfr", **own}, {"name": "AT", "kind": "pgd"}]
    plan = comparison(tmp_path, norm=norm, renew_every=of_all, methods=methods)
    lfr, other = list(plan.runs())[:2]
    assert lfr.settings.get("renew_every") == expected
    assert "renew_every" not in other.settings


def test_what_is_judged_changes_the_result_but_not_the_training(tmp_path: Path) -> None:
    first = next(iter(comparison(tmp_path).runs()))
    judged = next(iter(comparison(tmp_path, images=[0, 10]).runs()))
    trained = next(iter(comparison(tmp_path, lr=0.05).runs()))
    assert judged.training_key == first.training_key
    assert judged.key != first.key
    assert trained.training_key != first.training_key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 0}, "eps is 0"),
        ({"norm": 3}, "norm is 3"),
        ({"epoch": 3}, "unknown settings \\['epoch'\\]"),
        ({"part": "train"}, "part is 'train'"),
        ({"part": "validation"}, "validation is 0"),
        ({"seeds": []}, "must not be empty"),
        ({"images": [10]}, "images is \\[10\\]"),
        ({"attacks": ["PGD-40", "Squair"]}, "attacks is 'Squair'"),
        ({"data": "mnist.npz"}, "splits is \\[0, 1\\] with data 'mnist.npz'"),
        ({"methods": [{"name": "a", "kind": "mart"}]}, "kind is 'mart'"),
        ({"methods": [{"name": "a", "kind": "pgd", "lam": 1}]}, "settings \\['lam'\\]"),
        ({"methods": [{"name": "a", "kind": "pgd"}] * 2}, "each name once"),
        ({"methods": [{"name": "a", "kind": "pgd", "max_grad_norm": 0}]}, "max_grad_norm is 0"),
        ({"methods": [{"name": "a", "kind": "pgd", "epochs": 0}]}, "epochs is 0"),
        ({"methods": [{"name": "a", "kind": "trades", "beta": -1}]}, "'a': beta is -1"),
        ({"methods": [{"name": "a", "kind": "pgd", "lr": "fast"}]}, "'a': lr is 'fast'"),
        ({"methods": [{"name": "a", "kind": "pgd", "steps": 0}]}, "'a': steps is 0"),
        ({"methods": [{"name": "a", "kind": "lfr", "radius": -1}]}, "'a': radius is -1"),
        ({"methods": [{"name": "a", "kind": "pgd", "seeds": [7]}]}, "seeds \\[7\\]"),
        (
            {"methods": [{"name": "a", "kind": "lfr", "warm_start": True}], "flip": True},
            "warm_start with flip",
        ),
        ({"methods": [{"name": "a", "kind": "pgd", "seeds": 1}]}, "seeds 1"),
        ({"methods": [{"name": "a", "kind": "pgd", "seeds": []}]}, "seeds \\[\\]"),
    ],
)
def test_bad_plans_name_the_culprit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        comparison(tmp_path, **changes)


def test_files_that_are_no_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_plan(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="at least name, data, model, eps and methods"):
        read_plan(write(tmp_path, [{"name": "x"}]))
    with pytest.raises(ValueError, match="each name once"):
        read_plan(write(tmp_path, [PLAN, PLAN]))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="no YAML"):
        read_plan(tmp_path / "broken.yaml")


@pytest.mark.parametrize("count", [1, 8, 13, 450])
def test_packed_booleans_come_back(count: int) -> None:
    correct = np.random.default_rng(count).random(count) < 0.5
    assert (unpack(pack(correct), count) == correct).all()


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
    assert found._replace(runs=2).verdict == "open"


def test_pairing_takes_out_what_both_share() -> None:
    generator = np.random.default_rng(0)
    second = [generator.random(500) < 0.5 for _ in range(3)]
    first = [row.copy() for row in second]
    for row in first:
        row[:25] = True
        row[25:] = second[0][25:] if row is first[0] else row[25:]
    found = paired_difference(first, second, [0, 0, 0])
    assert found.high - found.low < 4  # unpaired: about 7 points


def test_verdicts() -> None:
    assert Difference(2, 0.1, 4, 3).verdict == "ahead"
    assert Difference(1, -0.9, 4, 3).verdict == "at or above"
    assert Difference(-3, -4, -2, 3).verdict == "behind"
    assert Difference(-1, -4, 2, 3).verdict == "open"
    # Seeds often differ by more than an interval over images is wide.
    assert Difference(2, 0.1, 4, 1).verdict == "one run"


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="first has 0 runs"):
        paired_difference([], [], [])
    with pytest.raises(ValueError, match="differ"):
        paired_difference([np.ones(3)], [np.ones(4)], [0])


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
                "correct": {"worst case": pack(right)},
                "flatness": {"mean": 2.0},
                "times": [{"epoch": epochs, "cpu_seconds": 10.0 * epochs}],
                "masking": {"a": {"verdict": "pass"}, "b": {"verdict": "warn"}},
            }
        )
    runs[-1]["masking"] = {"a": {"verdict": "fail"}}
    return Results(comparison, runs)


def test_table_compares_with_the_better_baseline(tmp_path: Path) -> None:
    plan = comparison(tmp_path, masking_images=10)
    found = table(made_up(plan, {"AT": 0.5, "AT wide": 0.6, "AT long": 0.9, "LFR": 0.8}))
    row = found.set_index("method").loc["LFR"]
    # At equal epochs "AT wide" is the better one; "AT long" takes longer than LFR.
    assert row["against AT"].startswith("+20.0")
    assert row["against AT"].endswith("ahead")
    assert row["at equal time"].startswith("+20.0")
    assert row["masking"] == "3 of 4 pass"
    assert found.set_index("method").loc["AT", "against AT"] == ""
    assert found.set_index("method").loc["AT", "masking"] == "4 of 4 pass"


def test_the_baseline_is_the_better_one_on_the_runs_that_are_shared(tmp_path: Path) -> None:
    results = made_up(comparison(tmp_path), {"AT": 0.5, "AT wide": 0.6, "LFR": 0.8})
    right = np.ones(IMAGES, bool)
    for run in results.runs:  # the narrower one is better on average, thanks to seed 1
        if run["method"] == "AT" and run["seed"] == 1:
            run["accuracy"]["worst case"], run["correct"]["worst case"] = 1.0, pack(right)
    assert results.baseline("LFR", equal_time=False) == "AT"
    results.runs = [r for r in results.runs if r["method"] != "LFR" or r["seed"] == 0]
    assert results.baseline("LFR", equal_time=False) == "AT wide"


def test_a_training_that_was_stopped_does_not_count_as_a_quick_one(tmp_path: Path) -> None:
    results = made_up(comparison(tmp_path), {"AT": 0.5, "LFR": 0.8})
    whole = results.seconds("LFR")
    stopped = next(run for run in results.runs if run["method"] == "LFR")
    stopped["times"] = [{"epoch": 1, "cpu_seconds": 0.1}]
    assert results.seconds("LFR") < whole
    stopped["stopped"] = "the loss is inf"
    assert results.seconds("LFR") == whole


def test_figure_shows_the_mean_of_the_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from art_lfr.comparison.drawing import time_figure

    results = made_up(comparison(tmp_path, snapshots=1), {"AT": 0.5, "LFR": 0.8})
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


def test_figure_of_a_run_that_stopped_before_its_first_snapshot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from art_lfr.comparison.drawing import time_figure

    results = made_up(comparison(tmp_path, snapshots=1), {"AT": 0.5, "LFR": 0.8})
    for run in results.runs:
        run["snapshots"] = []
    assert len(time_figure(results).axes[0].get_legend().get_texts()) == 2


def test_table_shows_where_the_method_is_behind(tmp_path: Path) -> None:
    results = made_up(comparison(tmp_path), {"AT": 0.8, "LFR": 0.5})
    row = table(results).set_index("method").loc["LFR"]
    assert row["against AT"].startswith("-30.0")
    assert row["against AT"].endswith("behind")
    text = to_markdown(results)
    assert "8 of 16 runs" in text
    assert "| LFR" in text
    assert "\\toprule" in to_latex(results)
