"""The comparisons of these folders: their plans, their published runs, their trained networks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from art_lfr.comparison.plan import Comparison, Run, read_plan
from art_lfr.comparison.results import Results
from art_lfr.comparison.runner import WEIGHTS

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
MARKED = re.compile(r"<!-- (?P<name>\S+) -->\n.*?<!-- end -->", re.DOTALL)


def renewed(page: str, tables: Mapping[str, Sequence[str]]) -> str:
    """A page with the lines of each table between `<!-- NAME -->` and `<!-- end -->` made anew."""

    def table(match: re.Match[str]) -> str:
        text = "\n".join(tables[match["name"]])
        return f"<!-- {match['name']} -->\n\n{text}\n\n<!-- end -->"

    return MARKED.sub(table, page)


def questions() -> dict[str, dict[str, Comparison]]:
    """Of each folder that compares methods, the comparisons of its plans by their names."""
    return {
        results.parent.name: {
            comparison.name: comparison
            for plan in sorted(results.parent.glob("*.yaml"))
            for comparison in read_plan(plan)
        }
        for results in sorted(HERE.glob("*/results"))
    }


def comparison_named(name: str) -> Comparison:
    """The comparison of this name."""
    return _question_and_comparison(name)[1]


def results_path(name: str) -> Path:
    """Where the published runs of the comparison of this name lie."""
    return HERE / _question_and_comparison(name)[0] / "results" / f"{name}.json"


def published(name: str) -> Results:
    """The published runs of the comparison of this name."""
    return Results(comparison_named(name), json.loads(results_path(name).read_text()))


def first_runs(comparison: Comparison) -> dict[str, Run]:
    """Each method's run of the first seed and split."""
    return {run.method: run for run in reversed(list(comparison.runs()))}


def weights_path(run: Run, runs: Path) -> Path:
    """Where `art-lfr compare --output RUNS` leaves the weights of a run."""
    return runs / "trainings" / run.training_key / WEIGHTS


def _question_and_comparison(name: str) -> tuple[str, Comparison]:
    found = {
        each: (question, comparison)
        for question, comparisons in questions().items()
        for each, comparison in comparisons.items()
    }
    if name not in found:
        raise typer.BadParameter(f"name is {name!r}; allowed: {', '.join(found)}")
    return found[name]
