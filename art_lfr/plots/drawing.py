"""Figures of what was measured, several networks side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from art_lfr.core.arguments import Array, check_integer
from art_lfr.core.geometry import NORM_NAMES, dual_norm
from art_lfr.errors import UsageError
from art_lfr.plots.gradients import GradientMaps
from art_lfr.plots.style import PALETTE, new_figure, tidy
from art_lfr.plots.surface import LossSurface
from art_lfr.plots.vulnerability import Vulnerability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measured = TypeVar("Measured", Vulnerability, LossSurface, GradientMaps)

COLUMNS = 4
# A logarithmic axis shows so many powers of ten below its largest value.
DECADES = 8
HIGHLIGHT = PALETTE[1]


def vulnerability_figure(results: Mapping[str, Vulnerability]) -> Figure:
    """V(x) against LF(x), a panel for each network, with the line V = eps * LF.

    Both axes are logarithmic and shared. Samples above the line (the ascent missed their least
    flat point) are crosses; values below the lowest power of ten shown lie on the edge. Raises
    ValueError where there is nothing to draw, or radii or norms differ.
    """
    first = _first(results, lambda result: (result.eps, result.norm), "eps and norm")
    columns = min(COLUMNS, len(results))
    rows = math.ceil(len(results) / columns)
    figure = new_figure(3.3 * columns + 0.6, 3.5 * rows + 0.3)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    steep, rise = (
        np.concatenate([getattr(result, key) for result in results.values()])
        for key in ("flatness", "vulnerability")
    )
    (left, right), (bottom, top) = _limits(steep), _limits(np.append(rise, first.eps * steep))
    q = dual_norm(float(first.norm))
    for axes, (name, result) in zip(grid, results.items(), strict=False):
        across = np.maximum(result.flatness, left)
        up = np.maximum(result.vulnerability, bottom)
        for chosen, marker, colour, alpha, size, label in (
            (~result.violated, "o", PALETTE[0], 0.55, 3.5, "samples"),
            (result.violated, "x", HIGHLIGHT, 1.0, 7, "above the bound"),
        ):
            if chosen.any():
                axes.plot(
                    across[chosen],
                    up[chosen],
                    marker,
                    color=colour,
                    alpha=alpha,
                    markersize=size,
                    markeredgewidth=1.5 if marker == "x" else 0,
                    label=f"{label}: {int(chosen.sum())}",
                )
        line = np.array([left, right])
        axes.plot(line, first.eps * line, "k--", lw=1.2, label="bound: V = eps LF")
        axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
        axes.set_title(f"{name}\nrank correlation {result.rank_correlation:.2f}", fontsize=10)
        axes.legend(fontsize=7, loc="upper left", frameon=False)
        tidy(axes)
    for axes in grid[len(results) :]:
        axes.set_visible(False)
    figure.supxlabel(
        f"local flatness LF: largest $||\\nabla\\ell||_{{{_tex(q)}}}$ found\n"
        f"(nats per unit of x; {NORM_NAMES[float(first.norm)]}, eps {first.eps:g})",
        fontsize=10,
    )
    figure.supylabel("vulnerability V: rise of the loss (nats)", fontsize=10)
    return figure


def surface_figure(results: Mapping[str, LossSurface]) -> Figure:
    """The loss around samples: a row for each sample, a column for each network.

    The point is the clean sample, the triangle the adversarial example. The surfaces of one
    sample share height and colours. Raises ValueError where there is nothing to draw, or the
    surfaces differ in radius, norm, samples or grid.
    """
    first = _first(
        results,
        lambda result: (result.eps, result.norm, result.losses.shape, result.labels.tolist()),
        "eps, norm, samples and points",
    )
    count = len(first.labels)
    height = 3.1 * count + 0.7
    # The automatic layout lets axes in 3-d overlap.
    figure = new_figure(3.7 * len(results) + 0.6, height, layout=None)
    figure.subplots_adjust(
        left=0.03, right=0.93, bottom=0.3 / height, top=1 - 0.75 / height, wspace=0.1, hspace=0.1
    )
    for sample in range(count):
        heights = np.stack([result.losses[sample] for result in results.values()])
        limits = (min(0.0, float(heights.min())), max(1e-9, float(heights.max())))
        for column, (name, result) in enumerate(results.items()):
            position = sample * len(results) + column + 1
            axes: Any = figure.add_subplot(
                count, len(results), position, projection="3d", computed_zorder=False
            )
            _draw_surface(axes, result, sample, limits)
            axes.set_title(
                f"{name}, sample {sample + 1} (label {int(result.labels[sample])})",
                y=0.98,
                fontsize=10,
            )
    figure.suptitle(
        f"Loss around samples, {NORM_NAMES[float(first.norm)]}, eps {first.eps:g}",
        fontsize=10,
        y=1 - 0.1 / height,
        va="top",
    )
    handles, labels = axes.get_legend_handles_labels()
    place = (0.5, 1 - 0.25 / height)
    figure.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=place,
        ncols=2,
        fontsize=8,
        frameon=False,
    )
    return figure


def _draw_surface(axes: Any, result: LossSurface, sample: int, limits: tuple[float, float]) -> None:
    low, high = limits
    a, b = np.meshgrid(result.reach, result.reach, indexing="ij")
    axes.plot_surface(a, b, result.losses[sample], cmap="viridis", vmin=low, vmax=high, linewidth=0)
    for a_value, loss, marker, label in (
        (0.0, result.clean[sample], "o", "clean sample"),
        (1.0, result.adversarial[sample], "^", "strongest example found by PGD"),
    ):
        axes.plot(
            [a_value],
            [0.0],
            [loss],
            marker,
            color=HIGHLIGHT,
            markeredgecolor="white",
            label=label,
        )
    axes.set_zlim(low, high)
    axes.set_xlabel("adversarial (1: example)", fontsize=8)
    axes.set_ylabel("random (1: eps)", fontsize=8)
    axes.set_zlabel("loss (nats)", fontsize=8)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.tick_params(labelsize=7)
    axes.view_init(elev=25, azim=-125)
    axes.set_box_aspect(None, zoom=0.9)


def gradients_figure(results: Mapping[str, GradientMaps], *, shown: int = 4) -> Figure:
    """Input gradients with their numbers: the image beside each network, `shown` samples.

    More of a red pixel raises the loss, more of a blue one lowers it; channels are summed. Each
    map has its own colours, as sizes differ by orders of magnitude. Above each column are the
    means over all samples measured. Raises ValueError for samples that are no images, (N, C, H,
    W), where networks were not shown the same ones, or there is nothing to draw.
    """
    check_integer("shown", shown, low=1)
    first = _first(results, lambda r: (r.images.tobytes(), r.labels.tolist()), "samples")
    if first.images.ndim != 4:
        raise UsageError(f"x has shape {first.images.shape}; allowed: images (N, C, H, W)")
    count = min(shown, len(first.labels))
    figure = new_figure(2.5 * (1 + len(results)), 2.6 * count + 0.5)
    grid = figure.subplots(count, 1 + len(results), squeeze=False)
    for row in range(count):
        _show_image(grid[row, 0], first.images[row])
        grid[row, 0].set_title(f"input, label {int(first.labels[row])}", fontsize=8)
        for axes, result in zip(grid[row, 1:], results.values(), strict=True):
            signed = result.gradients[row].sum(axis=0)
            limit = float(np.abs(signed).max()) or 1.0
            axes.imshow(signed, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_title(
                f"alignment {result.alignment[row]:.2f}, sparsity {result.sparsity[row]:.2f}\n"
                f"$||\\nabla\\ell||_1$ = {result.size[row]:.2g}",
                fontsize=8,
            )
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
    for axes, (name, result) in zip(grid[0, 1:], results.items(), strict=True):
        mean = result.summary()
        axes.set_title(
            f"{name}\nmean alignment {mean['mean alignment']:.2f}\n"
            f"mean sparsity {mean['mean sparsity']:.2f}\n"
            f"({mean['with a gradient']} samples)\n\n" + axes.get_title(),
            fontsize=8,
        )
    figure.supxlabel("red: a brighter pixel raises the loss; blue: it lowers it", fontsize=8)
    return figure


def _first(results: Mapping[str, Measured], key: Any, same: str) -> Measured:
    """One of the results; ValueError where there is none, or they differ in what `key` gives."""
    if not results:
        raise UsageError("results is empty; allowed: a mapping from names to what was measured")
    first = next(iter(results.values()))
    for name, result in results.items():
        if key(result) != key(first):
            raise UsageError(f"results[{name!r}] differs from the others; allowed: the same {same}")
    return first


def _limits(values: Array) -> tuple[float, float]:
    """Ends of a logarithmic axis: a little around the positive values, `DECADES` at most."""
    positive = values[values > 0]
    if len(positive) == 0:
        return 0.1, 10.0
    high = 1.6 * float(positive.max())
    return max(float(positive.min()) / 1.6, high / 10**DECADES), high


def _tex(exponent: float) -> str:
    return "\\infty" if exponent == math.inf else f"{exponent:g}"


def _show_image(axes: Any, image: Array) -> None:
    """Colours for three channels, grey for others; stretched to the image's own range."""
    picture = np.moveaxis(image, 0, 2) if image.shape[0] == 3 else image.mean(axis=0)
    low, high = float(picture.min()), float(picture.max())
    if picture.ndim == 3 and (low < 0 or high > 1):
        picture = (picture - low) / max(high - low, 1e-12)
    axes.imshow(picture, cmap="gray" if picture.ndim == 2 else None)
