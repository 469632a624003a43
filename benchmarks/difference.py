"""The paired difference of any two methods of a published comparison, and the spread of each.

    python benchmarks/difference.py benchmarks/comparisons/digits.yaml digits-0.1 "LFR held" TRADES

The tables compare with adversarial training only; other differences in the documentation are these.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Annotated, Optional

import typer

from art_lfr.comparison.plan import read_plan
from art_lfr.comparison.results import WORST, Results

RESULTS = Path(__file__).parent / "results/comparisons"


def main(
    plan: Path,
    name: str,
    method: str,
    other: str,
    split: Annotated[Optional[int], typer.Option(help="Runs of this split alone.")] = None,  # noqa: UP045
) -> None:
    """Print worst-case accuracies in per cent, and their difference with its interval."""
    comparison = next(c for c in read_plan(plan) if c.name == name)
    results = Results(comparison, json.loads((RESULTS / f"{name}.json").read_text()))
    if split is not None:
        results.runs = [run for run in results.runs if run["split"] == split]
    for each in (method, other):
        rates = [100 * run["accuracy"][WORST] for run in results.of(each).values()]
        typer.echo(
            f"{each}: lowest {min(rates):.1f}, median {median(rates):.1f}, highest {max(rates):.1f}"
        )
    found = results.difference(method, other)
    typer.echo(
        f"difference {found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f}), {found.verdict}, "
        f"{found.runs} pairs"
    )


if __name__ == "__main__":
    typer.run(main)
