"""Figures: training curves, loss surfaces around samples, input-gradient maps.

Each function returns a `matplotlib.figure.Figure` made without pyplot, so that no global state
is touched and no display is needed: `figure.savefig("curves.png")`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from art_lfr.geometry import Bounds
from art_lfr.plots.drawing import gradients_figure, surface_figure
from art_lfr.plots.gradients import gradient_maps
from art_lfr.plots.style import PALETTE, new_figure, require_matplotlib, tidy
from art_lfr.plots.surface import Array, loss_surface

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "PALETTE",
    "input_gradient_maps",
    "loss_surfaces",
    "new_figure",
    "require_matplotlib",
    "tidy",
    "training_curves",
]

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
        raise ValueError("histories has no epoch with a known key; allowed: `trainer.history`")
    figure = new_figure(4.6 * len(panels), 3.8)
    for axes, (title, unit, keys) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
    ):
        for colour, (name, history) in zip(PALETTE, drawn.items(), strict=False):
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


def loss_surfaces(
    models: Mapping[str, object],
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: float,
    norm: float | str = math.inf,
    bounds: Bounds = (0.0, 1.0),
    points: int = 25,
    seed: int = 0,
) -> Figure:
    """The loss on a plane around each sample: a row for each sample, a column for each model.

    `loss_surface` of each model, drawn by `surface_figure`. x has shape (N, ...) in raw units, a
    few samples; y has index labels, shape (N,).
    """
    return surface_figure(
        {
            name: loss_surface(
                model, x, y, eps=eps, norm=norm, bounds=bounds, points=points, seed=seed
            )
            for name, model in models.items()
        }
    )


def input_gradient_maps(
    models: Mapping[str, object], x: Tensor | Array, y: Tensor | Array
) -> Figure:
    """The gradient of the loss in the input: a row for each sample, the image beside each model.

    `gradient_maps` of each model, drawn by `gradients_figure`. x has
    shape (N, C, H, W) in raw units, a few samples; y has index labels, shape (N,).
    """
    maps = {name: gradient_maps(model, x, y) for name, model in models.items()}
    return gradients_figure(maps, shown=len(x))
