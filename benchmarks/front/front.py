"""Robust accuracy against core seconds: all methods of a task, and LFR beside what is as quick.

    python benchmarks/front/front.py RUNS
    python benchmarks/front/front.py RUNS --names front-mnist

RUNS is the output folder of `art-lfr compare benchmarks/front/front.yaml`, or `results/` here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from plans import HERE

from art_lfr.comparison.plan import Comparison, read_plan
from art_lfr.comparison.results import WORST, Results

PLAN = HERE / "front" / "front.yaml"


def read(comparison: Comparison, runs: Path) -> Results:
    """The finished runs of a task."""
    published = runs / f"{comparison.name}.json"
    if published.exists():
        return Results(comparison, json.loads(published.read_text()))
    return Results.read(comparison, runs / comparison.name)


def mean(results: Results, method: str, attack: str) -> float:
    """Accuracy in per cent over the runs of a method."""
    return 100 * float(np.mean([r["accuracy"][attack] for r in results.of(method).values()]))


def table(results: Results) -> list[str]:
    """All methods, the quickest first."""
    rows = ["| method | runs | core s | clean | worst case |", "|---|---|---|---|---|"]
    for method in sorted(results.methods, key=results.seconds):
        values = f"{mean(results, method, 'clean'):.1f} | {mean(results, method, WORST):.1f}"
        seconds = f"{results.seconds(method):.1f}"
        rows.append(f"| {method} | {len(results.of(method))} | {seconds} | {values} |")
    return rows


def at_equal_time(results: Results) -> list[str]:
    """LFR with steps that go on, beside the best adversarial training that takes no longer."""
    rows = [
        "| LFR | core s | worst case | adversarial training | core s | worst case | LFR ahead by |",
        "|---|---|---|---|---|---|---|",
    ]
    rivals = [m for m in results.methods if m.startswith("AT")]
    for method in (m for m in results.methods if m.startswith("LFR, K") and "warm" in m):
        seconds = results.seconds(method)
        within = [m for m in rivals if results.seconds(m) <= 1.05 * seconds]
        if not within:
            continue
        best = max(within, key=lambda m: mean(results, m, WORST))
        ahead = results.difference(method, best)
        rows.append(
            f"| {method} | {seconds:.1f} | {mean(results, method, WORST):.1f} | {best} | "
            f"{results.seconds(best):.1f} | {mean(results, best, WORST):.1f} | "
            f"{ahead.mean:+.1f} ({ahead.low:+.1f} to {ahead.high:+.1f}) |"
        )
    return rows


def main(
    runs: Path,
    names: Annotated[str, typer.Option(help="The tasks whose name contains this.")] = "",
) -> None:
    """Print the tables in Markdown."""
    for comparison in read_plan(PLAN):
        results = read(comparison, runs)
        if names in comparison.name and results.runs:
            typer.echo("\n".join([f"\n## {comparison.title}\n", *table(results)]))
            typer.echo("\n".join(["", *at_equal_time(results)]))


if __name__ == "__main__":
    typer.run(main)
