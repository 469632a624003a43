"""The figures, several networks side by side, and what all of them share."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from art_lfr.core.arguments import Array, check_choice, check_integer
from art_lfr.core.geometry import dual_norm
from art_lfr.core.imports import require
from art_lfr.core.names import FIGURE_FORMATS, NORM_NAMES, VIEWS
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.plots.measured import GradientMaps, LossSurface, Vulnerability
from art_lfr.storage.files import check_output, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Okabe & Ito's palette: told apart under every common form of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DOTS_PER_INCH = 160
# Without the date: the same figure gives the same file.
_DATELESS: dict[str, dict[str, None]] = {
    ".png": {},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def has_matplotlib() -> bool:
    """Whether a command that can do without figures draws them."""
    return importlib.util.find_spec("matplotlib") is not None


def require_matplotlib() -> None:
    """Raise ImportError, with the pip line, where matplotlib is missing."""
    require("matplotlib.figure", "plots")


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty figure, in inches, without pyplot: no global state, no display."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def tidy(axes: Any) -> None:
    """The house style of axes: a light grid, no box."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as .png (160 dots per inch), .pdf or .svg, atomically.

    Fonts in a .pdf are TrueType, as publishers ask. Raises ValueError for another ending or a
    place that cannot be written to.
    """
    require_matplotlib()
    import matplotlib

    path = check_output(path, "path", FIGURE_FORMATS)
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "art-lfr"}):
        write_atomically(
            path,
            lambda file: figure.savefig(
                file, format=path.suffix[1:], dpi=DOTS_PER_INCH, metadata=_DATELESS[path.suffix]
            ),
        )


Measured = TypeVar("Measured", Vulnerability, LossSurface, GradientMaps)

# Powers of ten that a logarithmic axis shows below its largest value.
DECADES = 8
HIGHLIGHT = PALETTE[1]
# Shapes that tell networks apart in print without colours.
MARKERS = ("o", "s", "^", "D", "v", "P")  # one less than colours: pairs repeat late
# Steps of colour below the highest loss of a figure of surfaces, two for each power of ten.
CONTOURS = 6


def vulnerability_figure(results: Mapping[str, Vulnerability]) -> Figure:
    """V(x) against LF(x) of every network, with the line V = eps * LF.

    Both axes are logarithmic. Samples above the line (the ascent missed their least flat point)
    are crosses; values below the lowest power of ten shown lie on the edge. Raises ValueError
    where there is nothing to draw, or radii or norms differ.
    """
    first = _first(results, lambda result: (result.eps, result.norm), "eps and norm")
    figure = new_figure(5.6, 4.4)
    axes = figure.subplots()
    steep, rise = (
        np.concatenate([getattr(result, key) for result in results.values()])
        for key in ("flatness", "vulnerability")
    )
    (left, right), (bottom, top) = _limits(steep), _limits(np.append(rise, first.eps * steep))
    line = np.array([left, right])
    axes.plot(line, first.eps * line, "k--", lw=1.2, label="bound: V = eps LF")
    for index, (name, result) in enumerate(results.items()):
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
        across = np.maximum(result.flatness, left)
        up = np.maximum(result.vulnerability, bottom)
        samples = {"color": colour, "alpha": 0.55, "markersize": 4, "markeredgewidth": 0}
        above = {"color": colour, "markersize": 7, "markeredgewidth": 1.5}
        below = f"{name} (rank correlation {result.rank_correlation:.2f})"
        for chosen, shape, label, style in (
            (~result.violated, marker, below, samples),
            (result.violated, "x", f"{name}, above the bound: {result.violated.sum()}", above),
        ):
            if chosen.any():
                axes.plot(across[chosen], up[chosen], shape, label=label, **style)
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    q = dual_norm(float(first.norm))
    exponent = "\\infty" if q == math.inf else f"{q:g}"
    axes.set_xlabel(
        f"local flatness LF: largest $||\\nabla\\ell||_{{{exponent}}}$ found\n"
        f"(nats per unit of x; {NORM_NAMES[float(first.norm)]}, eps {first.eps:g}; large is steep)"
    )
    axes.set_ylabel("vulnerability V: rise of the loss (nats)")
    counts = " and ".join(map(str, sorted({len(result.labels) for result in results.values()})))
    axes.set_title(f"What flatness says of vulnerability, {counts} images", fontsize=10)
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    tidy(axes)
    return figure


def surface_figure(results: Mapping[str, LossSurface], *, view: str = "contours") -> Figure:
    """The loss around samples: a row for each sample, a column for each network.

    `view` is "contours", whose colours are one logarithmic scale for the whole figure, or "3d",
    where the surfaces of one sample share height and colours. The point is the clean sample, the
    triangle the adversarial example, the dashed line the edge of the ball. Raises ValueError where
    there is nothing to draw, or the surfaces differ in radius, norm, samples or grid.
    """
    check_choice("view", view, VIEWS)
    first = _first(
        results,
        lambda result: (result.eps, result.norm, result.losses.shape, result.labels.tolist()),
        "eps, norm, samples and points",
    )
    title = f"Loss around samples, {NORM_NAMES[float(first.norm)]}, eps {first.eps:g}"
    return _contours(results, title) if view == "contours" else _in_3d(results, title)


def _contours(results: Mapping[str, LossSurface], title: str) -> Figure:
    count = len(next(iter(results.values())).labels)
    figure = new_figure(max(6.2, 2.5 * len(results) + 1.1), 2.5 * count + 1.0)
    grid = figure.subplots(count, len(results), sharex=True, sharey=True, squeeze=False)
    highest = max(float(result.losses.max()) for result in results.values())
    # 0.1, 0.3, 1, 3 and so on: half powers of ten, as people round them. The first stands for all
    # that is less, 0 too, which has no logarithm.
    steps = [float(f"{10 ** (k / 2):.1g}") for k in range(-40, 40)]
    top = next(k for k, step in enumerate(steps) if step >= highest and k >= CONTOURS)
    levels = steps[top - CONTOURS : top + 1]
    for column, (name, result) in enumerate(results.items()):
        for sample in range(count):
            axes = grid[sample, column]
            filled = axes.contourf(
                result.reach,
                result.reach,
                np.maximum(result.losses[sample].T.astype(float), 1.001 * levels[0]),
                levels,
                norm="log",
                cmap="viridis",
            )
            axes.plot(*result.edge[sample].T, color="white", lw=1.6)
            axes.plot(*result.edge[sample].T, "--", color="black", lw=1.6)
            for a, marker in ((0.0, "o"), (1.0, "^")):
                axes.plot(a, 0.0, marker, color=HIGHLIGHT, markeredgecolor="white")
            reach = (result.reach[0], result.reach[-1])
            axes.set(aspect="equal", xlim=reach, ylim=reach, xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        grid[0, column].set_title(name, fontsize=10)
    for sample, axes in enumerate(grid[:, 0]):
        axes.set_ylabel(f"sample {sample + 1} (label {int(result.labels[sample])})", fontsize=9)
    bar = figure.colorbar(filled, ax=grid, label="loss (nats)", shrink=0.9)
    bar.set_ticks(levels, labels=["less", *(f"{level:g}" for level in levels[1:])])
    figure.suptitle(f"{title}: the circle is the sample, the triangle its example", fontsize=10)
    figure.supxlabel(
        "across: to the strongest example (1: there); up: a random direction (1: eps)\n"
        "dashed: the edge of the ball",
        fontsize=9,
    )
    return figure


def _in_3d(results: Mapping[str, LossSurface], title: str) -> Figure:
    count = len(next(iter(results.values())).labels)
    height = 3.1 * count + 0.7
    # The automatic layout lets axes in 3-d overlap.
    figure = new_figure(max(6.2, 3.7 * len(results) + 0.6), height, layout=None)
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
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height, va="top")
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 1 - 0.25 / height)}
    figure.legend(handles, labels, **place, ncols=3, fontsize=8, frameon=False)
    return figure


def _draw_surface(axes: Any, result: LossSurface, sample: int, limits: tuple[float, float]) -> None:
    low, high = limits
    a, b = np.meshgrid(result.reach, result.reach, indexing="ij")
    across, beside = result.edge[sample].T
    axes.plot(across, beside, low, "--", color="black", lw=1.0, label="edge of the ball")
    axes.plot_surface(a, b, result.losses[sample], cmap="viridis", vmin=low, vmax=high, linewidth=0)
    for a_value, loss, marker, label in (
        (0.0, result.clean[sample], "o", "clean sample"),
        (1.0, result.adversarial[sample], "^", "strongest example found by PGD"),
    ):
        axes.plot(
            [a_value], [0.0], [loss], marker, color=HIGHLIGHT, markeredgecolor="white", label=label
        )
    axes.set(zlim=limits, xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    axes.set_xlabel("adversarial (1: example)", fontsize=8)
    axes.set_ylabel("random (1: eps)", fontsize=8)
    axes.set_zlabel("loss (nats)", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.view_init(elev=25, azim=-125)
    axes.set_box_aspect(None, zoom=0.9)


def gradients_figure(results: Mapping[str, GradientMaps], *, shown: int = 4) -> Figure:
    """Input gradients with their numbers: the image beside each network, `shown` samples.

    More of a red pixel raises the loss, more of a blue one lowers it; channels are summed. Sizes
    differ by orders of magnitude, so that each map has a scale of its own, which stands above it.
    Above each column are the means over all samples measured. Raises ValueError for samples that
    are no images, (N, C, H, W), where networks were not shown the same ones, or there is nothing
    to draw.
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
                f"darkest: {limit:.1g} nats per unit",
                fontsize=8,
            )
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
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
    if not isinstance(results, Mapping):
        raise WrongTypeError(
            f"results is a {type(results).__name__}; allowed: a mapping from names to what was "
            "measured, such as {'mine': result}"
        )
    if not results:
        raise UsageError("results is empty; allowed: a mapping from names to what was measured")
    first = next(iter(results.values()))
    for name, result in results.items():
        if key(result) != key(first):
            raise UsageError(f"results[{name!r}] differs from the others; allowed: the same {same}")
        for part in ("losses", "flatness", "vulnerability"):
            if not np.isfinite(getattr(result, part, 0.0)).all():
                raise UsageError(
                    f"results[{name!r}] has NaN or infinite {part}; allowed: a network whose loss "
                    "is finite around the samples"
                )
    return first


def _limits(values: Array) -> tuple[float, float]:
    """Ends of a logarithmic axis: a little around the positive values, `DECADES` at most."""
    positive = values[values > 0]
    if len(positive) == 0:
        return 0.1, 10.0
    high = 1.6 * float(positive.max())
    return max(float(positive.min()) / 1.6, high / 10**DECADES), high


def _show_image(axes: Any, image: Array) -> None:
    """Colours for three channels, grey for others; stretched to the image's own range."""
    picture = np.moveaxis(image, 0, 2) if image.shape[0] == 3 else image.mean(axis=0)
    low, high = float(picture.min()), float(picture.max())
    if picture.ndim == 3 and (low < 0 or high > 1):
        picture = (picture - low) / max(high - low, 1e-12)
    axes.imshow(picture, cmap="gray" if picture.ndim == 2 else None)


# What a style of line means in the training curves, in every panel.
STYLES = {"training": ":", "validation": "-", "validation, PGD-10": "--"}
# Panels of the training curves: title, unit, and the keys of a record with what they are of.
PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "Accuracy",
        "accuracy (%)",
        {
            "train_accuracy": "training",
            "validation_accuracy": "validation",
            "validation_robust_accuracy": "validation, PGD-10",
        },
    ),
    ("Loss", "loss (nats)", {"clean_loss": "training", "validation_loss": "validation"}),
    (
        "Local flatness (small is flat)",
        "gradient norm (nats per unit of x)",
        {"flatness": "training", "validation_flatness": "validation"},
    ),
)


def training_curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Accuracy, loss and local flatness over epochs: a colour for each run, a style for each part.

    A history is a list of records, one per epoch, as `trainer.history` has them; keys that a
    record lacks are left out. Raises ValueError where there is nothing to draw.
    """
    if not isinstance(histories, Mapping):
        raise WrongTypeError(
            f"histories is a {type(histories).__name__}; allowed: a mapping from names to "
            "histories, such as {'LFR': trainer.history}"
        )
    drawn = {name: history for name, history in histories.items() if history}
    present = {key for history in drawn.values() for record in history for key in record}
    panels = [panel for panel in PANELS if present & set(panel[2])]
    if not panels:
        raise UsageError("histories has no epoch with a known key; allowed: `trainer.history`")
    figure = new_figure(4.0 * len(panels), 4.0)
    every = np.atleast_1d(figure.subplots(1, len(panels)))
    colours = dict(zip(drawn, PALETTE * len(drawn), strict=False))
    parts: dict[str, None] = {}
    for axes, (title, unit, keys) in zip(every, panels, strict=True):
        for name, history in drawn.items():
            for key, part in keys.items():
                points = [
                    (r.get("epoch", i + 1), r[key]) for i, r in enumerate(history) if key in r
                ]
                if points:
                    parts[part] = None
                    epochs, values = np.array(points, dtype=float).T
                    scale = 100 if "accuracy" in key else 1
                    line: dict[str, Any] = {"color": colours[name], "linestyle": STYLES[part]}
                    axes.plot(epochs, scale * values, label=f"{name}, {part}", lw=1.6, **line)
        axes.set(title=title, xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if "accuracy" in unit:
            axes.set_ylim(top=101)
        else:
            axes.set_yscale("log")
        tidy(axes)
    from matplotlib.lines import Line2D

    shown = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    shown += [
        Line2D([], [], color="grey", linestyle=style, label=part)
        for part, style in STYLES.items()
        if part in parts
    ]
    figure.legend(handles=shown, loc="outside lower center", ncols=min(6, len(shown)), fontsize=9)
    return figure
