"""The figure of a comparison: worst-case accuracy against training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from art_lfr.comparison.results import WORST, Results
from art_lfr.core.intervals import wilson_interval
from art_lfr.plots.style import PALETTE, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Where there are more methods than colours, the shape tells them apart.
MARKERS = ("o", "s", "^", "D", "v")


def time_figure(results: Results) -> Figure:
    """Worst-case accuracy (per cent) against seconds of one core, a line or point each method.

    A method with snapshots is a line over its epochs, one without is a point at its end: means over
    its runs. Bars are 95 % Wilson intervals over the images of one run.
    """
    figure = new_figure(9.0, 4.5)
    axes = figure.add_subplot()
    for index, method in enumerate(results.methods):
        runs = list(results.of(method).values())
        repeat, which = divmod(index, len(PALETTE))
        first, last = runs[0]["judged"]["images"]
        points = _over_epochs(runs)
        if not points:  # no snapshots, or training stopped before the first
            rate = float(np.mean([run["accuracy"][WORST] for run in runs]))
            points = [(results.seconds(method), rate)]
        seconds, rates = (np.array(values) for values in zip(*points, strict=True))
        count = last - first
        bounds = np.array([wilson_interval(round(rate * count), count) for rate in rates]).T
        errors = np.abs(bounds - rates) * 100
        axes.errorbar(
            seconds,
            100 * rates,
            errors,
            marker=MARKERS[repeat % len(MARKERS)],
            color=PALETTE[which],
            label=method,
            capsize=3,
        )
    axes.set_xlabel("training time, seconds of one core")
    axes.set_ylabel("worst-case accuracy, %")
    axes.set_title(results.comparison.title or results.comparison.name)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    tidy(axes)
    return figure


def _over_epochs(runs: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Mean seconds and mean worst case at each epoch of which all runs have a snapshot.

    Without runs that were stopped, unless all were.
    """
    runs = [run for run in runs if "stopped" not in run] or runs
    seen: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        when = {t["epoch"]: t["cpu_seconds"] for t in run["times"]}
        for snapshot in run.get("snapshots", []):
            point = when[snapshot["epoch"]], snapshot["accuracy"][WORST]
            seen.setdefault(snapshot["epoch"], []).append(point)
    means = (np.mean(points, axis=0) for points in seen.values() if len(points) == len(runs))
    return [(float(seconds), float(rate)) for seconds, rate in means]
