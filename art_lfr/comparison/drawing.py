"""The figure of a comparison: worst-case accuracy against training time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from art_lfr.comparison.tables import WORST, Results
from art_lfr.evaluation.results import wilson_interval
from art_lfr.plots.style import PALETTE, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Where there are more methods than colours, the shape tells them apart.
MARKERS = ("o", "s", "^", "D", "v")


def time_figure(results: Results) -> Figure:
    """Worst-case accuracy (per cent) against seconds of one core, a line or point each method.

    A method with snapshots is a line over its epochs, one without is a point at its end; bars are
    95 % Wilson intervals over the images of one run.
    """
    figure = new_figure(9.0, 4.5)
    axes = figure.add_subplot()
    for index, method in enumerate(results.methods):
        runs = list(results.of(method).values())
        repeat, which = divmod(index, len(PALETTE))
        first, last = runs[0]["judged"]["images"]
        if runs[0].get("snapshots"):  # none where training stopped before the first
            when = {t["epoch"]: t["cpu_seconds"] for t in runs[0]["times"]}
            points = [(when[s["epoch"]], s["accuracy"][WORST]) for s in runs[0]["snapshots"]]
        else:
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
