"""Robust accuracy against core seconds: all methods of a task, and LFR beside what is as quick.

    python benchmarks/front/front.py RUNS
    python benchmarks/front/front.py RUNS --names front-mnist
    python benchmarks/front/front.py benchmarks/front/results --docs

RUNS is the output folder of `art-lfr compare benchmarks/front/front.yaml`, or `results/` here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.ticker import LogLocator

sys.path.insert(0, str(Path(__file__).parents[1]))
from plans import DOCS, HERE, renewed

from art_lfr.comparison.plan import Comparison, read_plan
from art_lfr.comparison.results import WORST, Results
from art_lfr.core.intervals import wilson_interval
from art_lfr.plots.drawing import PALETTE, new_figure, save_figure, tidy
from art_lfr.storage.files import write_atomically

PLAN = HERE / "front" / "front.yaml"
# Methods of one kind at several lengths are a line: label, how a method of it begins, looks.
LINES = (
    ("LFR, two warm-started steps", "LFR, K 2, warm", "o-", PALETTE[1]),
    ("adversarial training, two warm-started steps", "AT at eps + h, K 2, warm", "s-", PALETTE[0]),
    ("adversarial training, 3 to 10 cold-started steps", "AT", "s", PALETTE[5]),
    ("LFR, 3 or 5 cold-started steps", "LFR, K", "o", PALETTE[4]),
    ("ART's TRADES, 5 steps", "ART's TRADES", "^", PALETTE[2]),
)


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


def pairs(results: Results) -> list[tuple[str, str]]:
    """LFR with steps that go on, and the best adversarial training that takes no longer."""
    found = []
    rivals = [m for m in results.methods if m.startswith("AT")]
    for method in (m for m in results.methods if m.startswith("LFR, K") and "warm" in m):
        within = [m for m in rivals if results.seconds(m) <= 1.05 * results.seconds(method)]
        if within:
            found.append((method, max(within, key=lambda m: mean(results, m, WORST))))
    return found


def at_equal_time(results: Results) -> list[str]:
    """These pairs, as a table."""
    rows = [
        "| LFR | core s | worst case | adversarial training | core s | worst case | LFR ahead by |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, best in pairs(results):
        ahead = results.difference(method, best)
        rows.append(
            f"| {method} | {results.seconds(method):.1f} | {mean(results, method, WORST):.1f} | "
            f"{best} | {results.seconds(best):.1f} | {mean(results, best, WORST):.1f} | "
            f"{ahead.mean:+.1f} ({ahead.low:+.1f} to {ahead.high:+.1f}) |"
        )
    return rows


SHORT = {
    "front-digits-0.1": "digits, eps 0.1",
    "front-digits-0.2": "digits, eps 0.2",
    "front-digits-l2": "digits, l2, eps 0.5",
    "front-mnist": "MNIST, eps 0.3",
    "front-cifar10": "CIFAR-10, eps 8/255",
}


def shown(tasks: list[Results]) -> list[str]:
    """The table of docs/performance.md."""
    rows = [
        "| task | epochs | LFR | core s | adversarial training | core s | LFR ahead by |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    for results in tasks:
        for method, best in pairs(results):
            if method.startswith("LFR, K 2"):
                ahead = results.difference(method, best)
                rows.append(
                    f"| {SHORT[results.comparison.name]} | {results.epochs(method)} | "
                    f"{mean(results, method, WORST):.1f} | {results.seconds(method):.0f} | "
                    f"{mean(results, best, WORST):.1f} | {results.seconds(best):.0f} | "
                    f"{ahead.mean:+.1f} ({ahead.low:+.1f} to {ahead.high:+.1f}) |"
                )
    return rows


def line_of(results: Results, begins: str) -> list[str]:
    """The methods of one line, the quickest first; those that go on only where it says so."""
    found = [
        method
        for method in results.methods
        if method.startswith(begins) and ("warm" in method) == ("warm" in begins)
    ]
    return sorted(found, key=results.seconds)


def draw(tasks: list[Results], path: Path) -> None:
    """A panel for each task."""
    rows = -(-(len(tasks) + 1) // 3)
    figure = new_figure(10.5, 3.4 * rows)
    panels = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes, results in zip(panels, tasks, strict=False):
        for label, begins, style, colour in LINES:
            methods = line_of(results, begins)
            if not methods:
                continue
            seconds = [results.seconds(method) for method in methods]
            rates = np.array([mean(results, method, WORST) for method in methods])
            counts = [sum(_images(run) for run in results.of(m).values()) for m in methods]
            ends = [
                wilson_interval(round(rate * count / 100), count)
                for rate, count in zip(rates, counts, strict=True)
            ]
            errors = np.abs(100 * np.array(ends).T - rates)
            axes.errorbar(
                seconds, rates, errors, fmt=style, color=colour, label=label, capsize=2, ms=5
            )
        axes.set_xscale("log")
        axes.set_title(SHORT[results.comparison.name], fontsize=10)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        tidy(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    for axes in panels[len(tasks) :]:
        axes.axis("off")
    panels[len(tasks)].legend(handles, labels, loc="center", frameon=False, fontsize=9)
    figure.supxlabel("training time, seconds of one core", fontsize=10)
    figure.supylabel("robust accuracy, %: worst case of PGD-40, APGD-T, Square", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)


def _images(run: Mapping[str, Any]) -> int:
    first, last = run["judged"]["images"]
    return int(last - first)


def main(
    runs: Path,
    names: Annotated[str, typer.Option(help="The tasks whose name contains this.")] = "",
    docs: Annotated[
        bool, typer.Option("--docs", help="Renew the table and the figure of docs/performance.md.")
    ] = False,
) -> None:
    """Print the tables in Markdown."""
    if docs and names:
        raise typer.BadParameter("--docs has all tasks; allowed: without --names")
    found = [read(comparison, runs) for comparison in read_plan(PLAN) if names in comparison.name]
    tasks = [results for results in found if results.runs]
    for results in tasks:
        typer.echo("\n".join([f"\n## {results.comparison.title}\n", *table(results)]))
        typer.echo("\n".join(["", *at_equal_time(results)]))
    if docs:
        page = DOCS / "performance.md"
        write_atomically(page, renewed(page.read_text(), {"front": shown(tasks)}))
        draw(tasks, DOCS / "figures" / "front.png")


if __name__ == "__main__":
    typer.run(main)
