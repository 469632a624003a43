"""The published tables are what the published runs give, and the documentation shows them as is."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from lfr_testing import ROOT

from art_lfr.comparison import tables
from art_lfr.comparison.plan import Comparison, read_plan
from art_lfr.comparison.results import Results
from art_lfr.comparison.tables import to_latex, to_markdown

RESULTS = ROOT / "benchmarks/results/comparisons"
PLANNED = {
    comparison.name: comparison
    for path in sorted((ROOT / "benchmarks/comparisons").glob("*.yaml"))
    for comparison in read_plan(path)
}


def test_every_published_result_has_a_plan() -> None:
    published = {path.stem for path in RESULTS.glob("*.json")}
    assert published
    assert published <= set(PLANNED)


@pytest.fixture
def table_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms of a table take the same numbers: their intervals are a bootstrap of seconds."""
    make_table = tables.table
    made: dict[int, pd.DataFrame] = {}

    def table(results: Results) -> pd.DataFrame:
        if id(results) not in made:
            made[id(results)] = make_table(results)
        return made[id(results)].copy()

    monkeypatch.setattr(tables, "table", table)


@pytest.mark.usefixtures("table_made_once")
@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_tables_follow_from_the_runs(path: Path) -> None:
    runs = json.loads(path.read_text())
    comparison: Comparison = PLANNED[path.stem]
    planned = {run.key: run for run in comparison.runs()}
    for found in runs:
        run = planned[found["key"]]
        assert (found["method"], found["seed"], found["split"]) == (run.method, run.seed, run.split)
    results = Results(comparison, runs)
    assert path.with_suffix(".md").read_text() == to_markdown(results)
    assert path.with_suffix(".tex").read_text() == to_latex(results)


def test_the_results_page_shows_each_comparison_of_methods() -> None:
    page = (ROOT / "docs/results.md").read_text()
    exploring = ("tuning", "variants", "failure")
    shown = [path for path in RESULTS.glob("*.md") if not path.stem.startswith(exploring)]
    assert shown
    for path in shown:
        assert path.read_text() in page, f"{path} is not in docs/results.md as it is"
