"""The paired difference of any two methods of a published comparison, and the spread of each.

    python benchmarks/difference.py digits-0.1 "LFR held" TRADES
    python benchmarks/difference.py defaults-mnist "held first, clipped" before --results FILE.json

The second takes the runs of that file in place of those that are published.
The tables compare with adversarial training only; other differences in the documentation are these.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Annotated, Optional

import typer
from plans import comparison_named, published

from art_lfr.comparison.results import WORST, Results


def main(
    name: str,
    method: str,
    other: str,
    split: Annotated[Optional[int], typer.Option(help="Runs of this split alone.")] = None,  # noqa: UP045
    results: Annotated[Optional[Path], typer.Option(help="A file of runs.")] = None,  # noqa: UP045
) -> None:
    """Print worst-case accuracies in per cent, and their difference with its interval."""
    if results is None:
        found = published(name)
    else:
        found = Results(comparison_named(name), json.loads(results.read_text()))
    if split is not None:
        found.runs = [run for run in found.runs if run["split"] == split]
    for each in (method, other):
        if each not in found.methods:
            raise typer.BadParameter(f"method is {each!r}; allowed: {', '.join(found.methods)}")
        rates = [100 * run["accuracy"][WORST] for run in found.of(each).values()]
        typer.echo(
            f"{each}: lowest {min(rates):.1f}, median {median(rates):.1f}, highest {max(rates):.1f}"
        )
    difference = found.difference(method, other)
    typer.echo(
        f"difference {difference.mean:+.1f} ({difference.low:+.1f} to {difference.high:+.1f}), "
        f"{difference.verdict}, {difference.runs} pairs"
    )


if __name__ == "__main__":
    typer.run(main)
