"""The paired difference of any two methods of a published comparison, and the spread of each.

    python benchmarks/difference.py digits-0.1 "LFR held" TRADES

The tables compare with adversarial training only; other differences in the documentation are these.
"""

from __future__ import annotations

from statistics import median
from typing import Annotated, Optional

import typer
from plans import published

from art_lfr.comparison.results import WORST


def main(
    name: str,
    method: str,
    other: str,
    split: Annotated[Optional[int], typer.Option(help="Runs of this split alone.")] = None,  # noqa: UP045
) -> None:
    """Print worst-case accuracies in per cent, and their difference with its interval."""
    results = published(name)
    if split is not None:
        results.runs = [run for run in results.runs if run["split"] == split]
    for each in (method, other):
        if each not in results.methods:
            raise typer.BadParameter(f"method is {each!r}; allowed: {', '.join(results.methods)}")
        rates = [100 * run["accuracy"][WORST] for run in results.of(each).values()]
        typer.echo(
            f"{each}: lowest {min(rates):.1f}, median {median(rates):.1f}, highest {max(rates):.1f}"
        )
    difference = results.difference(method, other)
    typer.echo(
        f"difference {difference.mean:+.1f} ({difference.low:+.1f} to {difference.high:+.1f}), "
        f"{difference.verdict}, {difference.runs} pairs"
    )


if __name__ == "__main__":
    typer.run(main)
