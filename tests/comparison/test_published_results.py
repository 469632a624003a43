"""The published tables are what the published runs give."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from lfr_testing import ROOT

from art_lfr.comparison.plan import Comparison, read_plan
from art_lfr.comparison.results import Results

# Of each question that compares methods, the runs and the plans: in results/ and beside it.
RESULTS = sorted((ROOT / "benchmarks").glob("*/results/*.json"))
PLANNED = {
    comparison.name: comparison
    for folder in sorted({path.parents[1] for path in RESULTS})
    for path in sorted(folder.glob("*.yaml"))
    for comparison in read_plan(path)
}


def test_every_published_result_has_a_plan() -> None:
    published = {path.stem for path in RESULTS}
    assert published
    assert published <= set(PLANNED)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_tables_follow_from_the_runs(path: Path) -> None:
    runs = json.loads(path.read_text())
    comparison: Comparison = PLANNED[path.stem]
    planned = {run.key: run for run in comparison.runs()}
    for found in runs:
        run = planned[found["key"]]
        assert (found["method"], found["seed"], found["split"]) == (run.method, run.seed, run.split)
    results = Results(comparison, runs)
    assert results.to_markdown() in table_page(path).read_text()


def table_page(path: Path) -> Path:
    """Where the table of a result is shown as it is."""
    return path.parents[1] / "tables.md"


@pytest.mark.parametrize(
    "page", sorted({table_page(path) for path in RESULTS}), ids=lambda page: page.parent.name
)
def test_no_table_is_without_its_runs(page: Path) -> None:
    headings = re.findall(r"^\*\*.*; \d+ of \d+ runs\*\*$", page.read_text(), re.MULTILINE)
    assert len(headings) == sum(table_page(path) == page for path in RESULTS)
