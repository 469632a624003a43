"""The finished runs of a comparison as one table, in Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from art_lfr.comparison.results import Results
from art_lfr.core.intervals import Difference


def table(results: Results) -> pd.DataFrame:
    """One row a method: means over its runs, and differences to adversarial training.

    `runs` says how many of them the trainer stopped, judged by the weights that it gave back.
    Accuracies are in per cent; `flatness` is the mean local flatness; `core seconds` the training
    time on one core; `against AT` the paired difference in worst-case points to the better PGD
    adversarial training with as many epochs, with its 95 % interval; `at equal time` the same to
    the best one that takes no longer; `masking` the runs whose masking report has no failed check.
    """
    rows: list[dict[str, Any]] = []
    for method in results.methods:
        runs = list(results.of(method).values())
        kind = runs[0]["settings"]["kind"]
        accuracy = pd.DataFrame([run["accuracy"] for run in runs]).mean()
        row: dict[str, Any] = {
            "method": method,
            "runs": _count(runs),
            "epochs": results.epochs(method),
            **{name: f"{100 * value:.1f}" for name, value in accuracy.items()},
            "flatness": f"{sum(run['flatness']['mean'] for run in runs) / len(runs):.3g}",
            "core seconds": f"{results.seconds(method):.0f}",
        }
        for column, equal_time in (("against AT", False), ("at equal time", True)):
            other = None if kind == "pgd" else results.baseline(method, equal_time=equal_time)
            row[column] = "" if other is None else _shown(results.difference(method, other))
        if results.comparison.masking_images:
            row["masking"] = _masking(runs)
        rows.append(row)
    frame: pd.DataFrame = pd.DataFrame(rows)
    return frame


def _count(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many runs there are, and how many of them the trainer stopped before their end."""
    stopped = sum("stopped" in run for run in runs)
    return f"{len(runs)} ({stopped} stopped)" if stopped else str(len(runs))


def _shown(difference: Difference) -> str:
    return (
        f"{difference.mean:+.1f} ({difference.low:+.1f} to {difference.high:+.1f}) "
        f"{difference.verdict}"
    )


def _masking(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many of the reports that there are have no failed check."""
    reports = [run["masking"] for run in runs if "masking" in run]
    if not reports:
        return "not run"
    passed = [
        bool(r) and all(isinstance(c, dict) and c["verdict"] != "fail" for c in r.values())
        for r in reports
    ]
    return f"{sum(passed)} of {len(reports)} pass"


def heading(results: Results) -> str:
    """What was trained and judged, in one line."""
    c, runs = results.comparison, results.runs
    first, last = runs[0]["judged"]["images"]
    data = runs[0]["data"]
    return (
        f"{c.title or c.name}: {c.model} on {data['name']} ({data['train']} training images), eps "
        f"{c.eps:g}, norm {c.norm}; judged on {c.part} images {first} to {last - 1}; "
        f"{len(runs)} of {results.planned} runs"
    )


def to_markdown(results: Results) -> str:
    """The heading and the table in Markdown."""
    shown = table(results).to_markdown(index=False, disable_numparse=True)
    return f"**{heading(results)}**\n\n{shown}\n"


def to_latex(results: Results) -> str:
    """The table as a LaTeX tabular (package booktabs), the heading as a comment."""
    from tabulate import tabulate

    frame = table(results)
    body = tabulate(
        frame.values.tolist(),
        list(frame.columns),
        tablefmt="latex_booktabs",
        disable_numparse=True,
    )
    return f"% {heading(results)}\n{body}\n"
