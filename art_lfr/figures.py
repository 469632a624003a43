"""Figures: training curves, loss surfaces around samples, input-gradient maps.

Each function returns a `matplotlib.figure.Figure` made without pyplot, so that no global state
is touched and no display is needed: `figure.savefig("curves.png")`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from art_lfr.criterion import Criterion, logits_of
from art_lfr.flatness import input_gradient
from art_lfr.geometry import Bounds, Box, dual_vector, normal_like, parse_norm
from art_lfr.modes import device_of, frozen, mode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

# Okabe & Ito's palette: told apart under every common form of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
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
    models: Mapping[str, nn.Module],
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

    One axis is the steepest direction of that model's loss (the sign of its gradient for norm
    inf), the other a random direction of the same length; both run from -1.5 eps to 1.5 eps and
    are clipped to the bounds. All surfaces share the height axis. x has shape (N, ...) in
    raw units, a few samples; y has index labels, shape (N,).
    """
    inputs, labels = _checked(models, x, y)
    p, criterion = parse_norm(norm), Criterion()
    reach = np.linspace(-1.5 * eps, 1.5 * eps, points)
    # The automatic layout lets axes in 3-d overlap.
    figure = new_figure(4.2 * len(models), 3.6 * len(inputs), layout=None)
    figure.subplots_adjust(left=0.02, right=0.94, bottom=0.05, top=0.97, hspace=0.1, wspace=0.1)
    rows: list[list[Array]] = []
    for index in range(len(inputs)):
        sample, label = inputs[index : index + 1], labels[index : index + 1]
        noise = normal_like(sample, torch.Generator().manual_seed(seed + index))
        side = dual_vector(noise, p)
        rows.append(
            [
                _loss_on_plane(model, criterion, sample, label, side, p, reach, bounds)
                for model in models.values()
            ]
        )
    across, along = np.meshgrid(reach, reach)
    top = max(1e-6, float(np.max(rows)))
    for index, surfaces in enumerate(rows):
        for column, (name, surface) in enumerate(zip(models, surfaces, strict=True)):
            position = index * len(models) + column + 1
            axes: Any = figure.add_subplot(len(inputs), len(models), position, projection="3d")
            axes.plot_surface(
                along, across, surface, cmap="viridis", vmin=0, vmax=top, linewidth=0, alpha=0.95
            )
            axes.set_zlim(0, top)
            axes.set(
                xlabel="adversarial direction",
                ylabel="random direction",
                zlabel="loss (nats)",
            )
            axes.set_title(f"{name}, sample {index + 1} (label {int(labels[index])})", y=0.96)
            axes.locator_params(axis="x", nbins=5)
            axes.locator_params(axis="y", nbins=5)
            axes.view_init(elev=25, azim=-125)
            axes.set_box_aspect(None, zoom=0.85)
            axes.tick_params(labelsize=7)
    return figure


def input_gradient_maps(
    models: Mapping[str, nn.Module], x: Tensor | Array, y: Tensor | Array
) -> Figure:
    """The gradient of the loss in the input: a row for each sample, the image beside each model.

    More of a red pixel raises the loss, more of a blue one lowers it. Each map has its own colour
    scale, as sizes differ by orders of magnitude; its title gives the l1 norm. x has shape
    (N, C, H, W) in raw units, a few samples; y has index labels, shape (N,).
    """
    inputs, labels = _checked(models, x, y)
    if inputs.dim() != 4:
        raise ValueError(f"x has shape {tuple(inputs.shape)}; allowed: images (N, C, H, W)")
    figure = new_figure(2.3 * (1 + len(models)), 2.4 * len(inputs))
    grid = figure.subplots(len(inputs), 1 + len(models), squeeze=False)
    gradients = {
        name: _gradient(model, inputs, labels).cpu().numpy() for name, model in models.items()
    }
    for row, image in enumerate(inputs.cpu().numpy()):
        grey = image.shape[0] != 3
        picture = image.mean(axis=0) if grey else np.moveaxis(image, 0, 2)
        grid[row, 0].imshow(picture, cmap="gray" if grey else None)
        grid[row, 0].set_title(f"input, label {int(labels[row])}", fontsize=9)
        for column, (name, maps) in enumerate(gradients.items(), start=1):
            shown = maps[row].sum(axis=0)
            limit = float(np.abs(shown).max()) or 1.0
            grid[row, column].imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit)
            size = float(np.abs(maps[row]).sum())
            grid[row, column].set_title(f"{name}\n$||\\nabla\\ell||_1$ = {size:.2g}", fontsize=9)
        for axes in grid[row]:
            axes.set_xticks([])
            axes.set_yticks([])
    return figure


def require_matplotlib() -> None:
    """Raise ImportError, with the line that mends it, where matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "art-lfr[plots]"') from error


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty figure, in inches, without pyplot."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(width, height), layout=layout)
    return figure


def tidy(axes: Any) -> None:
    """The house style of axes: a light grid, no box."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _checked(models: Mapping[str, nn.Module], x: Any, y: Any) -> tuple[Tensor, Tensor]:
    inputs, labels = torch.as_tensor(x), torch.as_tensor(y)
    if not models:
        raise ValueError("models is empty; allowed: a mapping from names to modules")
    if inputs.dim() < 2 or len(inputs) == 0 or labels.shape != (len(inputs),):
        raise ValueError(
            f"x has shape {tuple(inputs.shape)} and y {tuple(labels.shape)}; allowed: (N, ...) and "
            "index labels (N,), at least one sample"
        )
    return inputs, labels.long()


def _gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    device = device_of(model, x)
    with mode(model, training=False), frozen(model):
        return input_gradient(model, Criterion(), x.to(device), y.to(device))


def _loss_on_plane(
    model: nn.Module,
    criterion: Criterion,
    x: Tensor,
    y: Tensor,
    side: Tensor,
    p: float,
    reach: Array,
    bounds: Bounds,
) -> Array:
    """Losses at x + a d + b side, shape (len(reach), len(reach)), a along the rows."""
    device = device_of(model, x)
    direction = dual_vector(_gradient(model, x, y), p).to(x.device)
    steps = torch.as_tensor(reach, dtype=x.dtype)
    shape = (-1, 1, *([1] * (x.dim() - 1)))
    plane = x + steps.reshape(shape) * direction  # (A, 1, ...) after broadcasting with x
    plane = plane + (steps.reshape(1, -1, *shape[2:]) * side)
    plane = Box.from_bounds(bounds, x).clip(plane.flatten(0, 1))
    with torch.no_grad(), mode(model, training=False):
        logits = logits_of(model(plane.to(device)))
        losses = criterion.values(logits, y.to(device).expand(len(plane)))
    found: Array = losses.reshape(len(reach), len(reach)).cpu().numpy()
    return found
