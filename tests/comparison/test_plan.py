"""Plans of comparisons: the runs that they stand for, and what is no plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from art_lfr.comparison.plan import Comparison, read_plan

Maker: TypeAlias = Callable[..., Comparison]


def test_runs_are_all_methods_on_all_splits_and_seeds(make_comparison: Maker) -> None:
    runs = list(make_comparison().runs())
    assert len(runs) == len({run.key for run in runs}) == 4 * 2 * 2
    assert {(run.method, run.seed, run.split) for run in runs[:4]} == {
        (name, 0, 0) for name in ("AT", "AT wide", "AT long", "LFR")
    }
    assert {run.settings["epochs"] for run in runs} == {2, 5}


def test_a_method_may_have_fewer_seeds(make_comparison: Maker) -> None:
    methods = [{"name": "AT", "kind": "pgd"}, {"name": "LFR", "kind": "lfr", "seeds": [1]}]
    runs = list(make_comparison(methods=methods).runs())
    assert [(run.method, run.seed) for run in runs if run.split == 0] == [
        ("AT", 0),
        ("AT", 1),
        ("LFR", 1),
    ]
    every = make_comparison(methods=[methods[0], {**methods[1], "seeds": [0, 1]}])
    assert {run.key for run in runs} < {run.key for run in every.runs()}


@pytest.mark.parametrize(
    ("norm", "of_all", "own", "expected"),
    [
        ("inf", 1, {}, None),  # as in the runs that were made before there was a choice
        (2, 3, {}, 3),
        ("inf", 3, {"renew_every": 5}, 5),
        ("inf", 3, {"estimator": "exact"}, None),
    ],
)
def test_how_often_the_ascent_renews_its_gradient(
    make_comparison: Maker, norm: Any, of_all: int, own: dict[str, Any], expected: int | None
) -> None:
    methods = [{"name": "LFR", "kind": "lfr", **own}, {"name": "AT", "kind": "pgd"}]
    plan = make_comparison(norm=norm, renew_every=of_all, methods=methods)
    lfr, other = list(plan.runs())[:2]
    assert lfr.settings.get("renew_every") == expected
    assert "renew_every" not in other.settings


@pytest.mark.parametrize(
    ("of_all", "own", "held", "clip"),
    [
        ({}, {}, 2.0, 1.0),  # the trainer's defaults, and the same clip for all methods
        ({}, {"warmup": 4}, 4, 1.0),
        ({}, {"held_epochs": 1, "max_grad_norm": None}, 1, None),
        ({"held_epochs": 0, "max_grad_norm": None}, {}, None, None),  # as published first
    ],
)
def test_what_is_held_and_clipped(
    make_comparison: Maker, of_all: dict[str, Any], own: dict[str, Any], held: Any, clip: Any
) -> None:
    methods = [{"name": "LFR", "kind": "lfr", **own}, {"name": "AT", "kind": "pgd"}]
    lfr, other = list(make_comparison(methods=methods, **of_all).runs())[:2]
    assert (lfr.settings.get("held_epochs"), lfr.settings.get("max_grad_norm")) == (held, clip)
    assert "held_epochs" not in other.settings
    assert other.settings.get("max_grad_norm") == of_all.get("max_grad_norm", 1.0)
    assert ("max_grad_norm" in lfr.settings) == (clip is not None or "max_grad_norm" in own)


def test_what_is_judged_changes_the_result_but_not_the_training(make_comparison: Maker) -> None:
    first = next(iter(make_comparison().runs()))
    judged = next(iter(make_comparison(images=[0, 10]).runs()))
    trained = next(iter(make_comparison(lr=0.05).runs()))
    assert judged.training_key == first.training_key
    assert judged.key != first.key
    assert trained.training_key != first.training_key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 0}, "eps is 0"),
        ({"norm": 3}, "norm is 3"),
        ({"epoch": 3}, "unknown settings \\['epoch'\\].*did you mean 'epochs'"),
        ({"part": "train"}, "part is 'train'"),
        ({"part": "validation"}, "validation is 0"),
        ({"seeds": []}, "seeds is empty; allowed: at least one"),
        ({"images": [40, 0]}, r"images is \[40, 0\]; allowed: two, the first and last \+ 1"),
        ({"images": [10]}, "images is \\[10\\]"),
        ({"attacks": ["PGD-40", "Squair"]}, "attacks is 'Squair'"),
        ({"data": "mnist.npz"}, "splits is \\[0, 1\\] with data 'mnist.npz'"),
        (
            {"methods": [{"name": "a", "kind": "mart"}]},
            "plan.yaml', 'small': .*'a': kind is 'mart'",
        ),
        ({"methods": [{"name": "a", "kind": "pdg"}]}, "; did you mean 'pgd'"),
        ({"methods": [{"name": "a", "kind": "pgd", "lam": 1}]}, "settings \\['lam'\\]"),
        ({"methods": [{"name": "a", "kind": "pgd"}] * 2}, "each name once"),
        ({"methods": [{"name": "a", "kind": "pgd", "max_grad_norm": 0}]}, "max_grad_norm is 0"),
        ({"methods": [{"name": "a", "kind": "pgd", "epochs": 0}]}, "epochs is 0"),
        ({"methods": [{"name": "a", "kind": "trades", "beta": -1}]}, "'a': beta is -1"),
        ({"methods": [{"name": "a", "kind": "pgd", "lr": "fast"}]}, "'a': lr is 'fast'"),
        ({"methods": [{"name": "a", "kind": "pgd", "steps": 0}]}, "'a': steps is 0"),
        ({"methods": [{"name": "a", "kind": "lfr", "radius": -1}]}, "'a': radius is -1"),
        ({"methods": [{"name": "a", "kind": "pgd", "seeds": [7]}]}, "seeds \\[7\\]"),
        ({"methods": [{"name": "a", "kind": "pgd", "seeds": 1}]}, "seeds 1"),
        ({"methods": [{"name": "a", "kind": "pgd", "seeds": []}]}, "seeds \\[\\]"),
    ],
)
def test_bad_plans_name_the_culprit(
    make_comparison: Maker, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_comparison(**changes)


def test_files_that_are_no_plan_are_refused(
    tmp_path: Path, small_plan: dict[str, Any], write_plan: Callable[[Any], Path]
) -> None:
    with pytest.raises(FileNotFoundError, match="is no file"):
        read_plan(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="at least name, data, model, eps and methods"):
        read_plan(write_plan([{"name": "x"}]))
    with pytest.raises(ValueError, match="each name once"):
        read_plan(write_plan([small_plan, small_plan]))
    (tmp_path / "broken.yaml").write_text("a: [")
    # Not "plan", which would become an option of the command line.
    with pytest.raises(ValueError, match=r"^the plan .* is no YAML"):
        read_plan(tmp_path / "broken.yaml")
