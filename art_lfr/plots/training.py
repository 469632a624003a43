"""The figure of a training's epochs: accuracy, loss and flatness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from art_lfr.errors import UsageError
from art_lfr.plots.style import PALETTE, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Panels of the training curves: title, unit, and the keys of a record with their line styles.
PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "Accuracy",
        "accuracy (%)",
        {"train_accuracy": ":", "validation_accuracy": "--", "validation_robust_accuracy": "-"},
    ),
    ("Loss", "loss (nats)", {"clean_loss": "-", "validation_loss": "--"}),
    (
        "Local flatness (small is flat)",
        "gradient norm (nats per unit of x)",
        {"flatness": ":", "validation_flatness": "-"},
    ),
)
LABELS = {
    "train_accuracy": "training",
    "validation_accuracy": "validation",
    "validation_robust_accuracy": "validation, PGD-10",
    "clean_loss": "training",
    "validation_loss": "validation",
    "flatness": "training",
    "validation_flatness": "validation",
}


def training_curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Accuracy, loss and local flatness over epochs, one colour for each named run.

    A history is a list of records, one per epoch, as `trainer.history` has them; keys that a
    record lacks are left out. Raises ValueError where there is nothing to draw.
    """
    drawn = {name: history for name, history in histories.items() if history}
    present = {key for history in drawn.values() for record in history for key in record}
    panels = [panel for panel in PANELS if present & set(panel[2])]
    if not panels:
        raise UsageError("histories has no epoch with a known key; allowed: `trainer.history`")
    figure = new_figure(4.6 * len(panels), 3.8)
    for axes, (title, unit, keys) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
    ):
        for colour, (name, history) in zip(PALETTE * len(drawn), drawn.items(), strict=False):
            for key, style in keys.items():
                points = [
                    (r.get("epoch", i + 1), r[key]) for i, r in enumerate(history) if key in r
                ]
                if points:
                    epochs, values = np.array(points, dtype=float).T
                    scale = 100 if "accuracy" in key else 1
                    label = f"{name}, {LABELS[key]}"
                    axes.plot(epochs, scale * values, style, color=colour, label=label, lw=1.6)
        axes.set(title=title, xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if "accuracy" in unit:
            axes.set_ylim(top=101)
        else:
            axes.set_yscale("log")
        axes.legend(fontsize=7)
        tidy(axes)
    return figure
