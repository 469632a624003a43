"""The command `art-lfr plot`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from art_lfr.cli.options import (
    BatchSizeOption,
    DataOption,
    EpsOption,
    ModelOption,
    NormOption,
    SeedOption,
    WeightsOption,
)
from art_lfr.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

# The images of each kind where --images is not given.
IMAGES = {"flatness": 200, "surface": 2, "gradients": 200, "curve": 200}
SURFACE_POINTS, CURVE_POINTS = 25, 8


def plot(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="flatness, surface, gradients or curve.")
    ],
    model: ModelOption = "digits-cnn",
    weights: WeightsOption = None,
    name: Annotated[
        str, typer.Option(help="What to call the network; default: its weights' file name.")
    ] = "",
    compare: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="NAME=WEIGHTS: the same network with other weights, beside it; can be repeated."
        ),
    ] = None,
    data: DataOption = "digits",
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    images: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="The first so many images; default: 2 for surface, else 200."),
    ] = None,
    eps: EpsOption = 0.1,
    norm: NormOption = "inf",
    steps: Annotated[int, typer.Option(help="Ascent steps (flatness, surface).")] = 20,
    restarts: Annotated[int, typer.Option(help="Ascents (flatness, surface).")] = 5,
    points: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Points along each axis of a surface (25), or of a curve up to eps (8)."),
    ] = None,
    attacks: Annotated[
        str, typer.Option(help="Attacks of the curve, with commas between.")
    ] = "PGD-40,Square",
    batch_size: BatchSizeOption = 256,
    seed: SeedOption = 0,
    output: Annotated[Path, typer.Option(help="The figure: .png, .pdf or .svg.")] = Path(
        "figure.png"
    ),
    numbers: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the numbers behind the figure to this .csv or .json file."),
    ] = None,
) -> None:
    """Draw a figure of the paper for a network, or for several side by side.

    flatness: the vulnerability of each image against its local flatness, and the bound.
    surface: the loss around images, along an adversarial and a random direction.
    gradients: what the loss looks at, with alignment and sparsity.
    curve: accuracy against eps.

    [bold]Examples:[/bold]

    art-lfr plot flatness --weights robust.pt --compare standard=standard.pt

    art-lfr plot surface --weights robust.pt --images 3 --output surface.pdf

    art-lfr plot curve --weights robust.pt --eps 0.3 --numbers curve.csv
    """
    import pandas

    from art_lfr.cli.inputs import judged, show, trained_model, write_table
    from art_lfr.core.arguments import check_choice, check_integer
    from art_lfr.plots.style import FIGURE_FORMATS, require_matplotlib, save_figure
    from art_lfr.storage.files import check_output

    check_choice("KIND", kind, IMAGES)
    check_integer("--images", images, low=1, optional=True)
    check_integer("--points", points, low=2, optional=True)
    check_output(output, "--output", FIGURE_FORMATS)
    if numbers is not None:
        check_output(numbers, "--numbers", (".csv", ".json"))
    require_matplotlib()
    first = name or (model.rpartition(":")[2] if weights is None else weights.stem)
    others = _comparisons(compare or [], first)
    network, loaded, x, y = judged(model, weights, data, split, images or IMAGES[kind])
    networks = {first: network}
    for other, path in others.items():
        networks[other] = trained_model(model, path, loaded, "--compare")

    settings: dict[str, Any] = {"batch_size": batch_size}
    if kind != "gradients":
        settings.update(bounds=loaded.bounds, eps=eps, norm=norm, seed=seed)
    if kind in ("flatness", "surface"):
        settings.update(steps=steps, restarts=restarts)
    if kind == "surface":
        settings.update(points=points or SURFACE_POINTS)
    if kind == "curve":
        listed = [attack.strip() for attack in attacks.split(",") if attack.strip()]
        settings.update(eps=_radii(eps, points or CURVE_POINTS), attacks=listed)
    measure, draw = _functions(kind)
    results = {key: measure(network, x, y, **settings) for key, network in networks.items()}
    save_figure(draw(results), output)
    show(_table(results, f"{kind}: {loaded.name} ({split}), {len(x)} images"))
    show(f"Figure: {output}")
    if numbers is not None:
        frames = [result.to_frame() for result in results.values()]
        for key, frame in zip(results, frames, strict=True):
            frame.insert(0, "network", key)
        write_table(pandas.concat(frames, ignore_index=True), numbers)
        show(f"Numbers: {numbers}")


def _table(results: Mapping[str, Any], title: str) -> Table:
    """The summaries: a row for each number, a column for each network."""
    from rich.table import Table

    from art_lfr.cli.inputs import escaped

    summaries = [result.summary() for result in results.values()]
    table = Table(title=title)
    table.add_column("")
    for name in results:
        table.add_column(escaped(name), justify="right")
    for row in summaries[0]:
        table.add_row(row, *(f"{summary[row]:.4g}" for summary in summaries))
    return table


def _functions(kind: str) -> tuple[Callable[..., Any], Callable[..., Figure]]:
    """What measures one network, and what draws several."""
    from art_lfr import plots
    from art_lfr.evaluation import curves

    functions: dict[str, tuple[Callable[..., Any], Callable[..., Figure]]] = {
        "flatness": (plots.vulnerability, plots.vulnerability_figure),
        "surface": (plots.loss_surface, plots.surface_figure),
        "gradients": (plots.gradient_maps, plots.gradients_figure),
        "curve": (curves.accuracy_curve, curves.curve_figure),
    }
    return functions[kind]


def _radii(eps: float, points: int) -> list[float]:
    """`points` radii in equal steps up to eps."""
    from art_lfr.core.arguments import check_number

    check_number("--eps", eps, low_allowed=False)
    return [eps * step / points for step in range(1, points + 1)]


def _comparisons(given: Sequence[str], first: str) -> dict[str, Path]:
    """Names and weights of the further networks; ValueError for anything but name=weights."""
    found: dict[str, Path] = {}
    for pair in given:
        name, _, weights = pair.partition("=")
        if not name or not weights:
            raise UsageError(f"--compare is {pair!r}; allowed: NAME=WEIGHTS, such as std=std.pt")
        if name == first or name in found:
            raise UsageError(f"--compare is {pair!r}, a name given twice; allowed: another name")
        found[name] = Path(weights)
    return found
