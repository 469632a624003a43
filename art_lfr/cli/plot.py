"""The command `art-lfr plot`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_lfr.cli import known, options
from art_lfr.core.names import FIGURE_FORMATS, VIEWS, find_name
from art_lfr.core.tables import Table
from art_lfr.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The default of --images for each kind.
IMAGES = {"flatness": 200, "surface": 2, "gradients": 200, "curve": 200}
SURFACE_POINTS, CURVE_POINTS = 25, 8
# Options that some kinds have no use for, and those that have.
USED_BY = {
    "eps": ("flatness", "surface", "curve"),
    "norm": ("flatness", "surface", "curve"),
    "seed": ("flatness", "surface", "curve"),
    "steps": ("flatness", "surface"),
    "restarts": ("flatness", "surface"),
    "points": ("surface", "curve"),
    "view": ("surface",),
    "attacks": ("curve",),
}


def plot(
    context: typer.Context,
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="flatness, surface, gradients or curve.")
    ],
    model: options.Model = None,
    weights: options.Weights = None,
    name: Annotated[
        str, typer.Option(help="What to call the network; default: its weights' file name.")
    ] = "",
    compare: Annotated[
        list[str] | None,
        typer.Option(help="NAME=WEIGHTS: another network, beside it; can be repeated."),
    ] = None,
    data: options.Data = None,
    split: options.Split = "test",
    images: Annotated[
        int | None,
        typer.Option(help="Number of images, the first ones; default: 2 for surface, else 200."),
    ] = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    steps: Annotated[int, typer.Option(help="Ascent steps (flatness, surface).")] = 20,
    restarts: Annotated[int, typer.Option(help="Ascents (flatness, surface).")] = 5,
    points: Annotated[
        int | None,
        typer.Option(help="Points along each axis of a surface (25), or of a curve up to eps (8)."),
    ] = None,
    view: Annotated[str, typer.Option(help="How a surface is drawn: contours or 3d.")] = "contours",
    attacks: Annotated[
        str, typer.Option(help="Attacks of the curve, with commas between.")
    ] = "PGD-40,Square",
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="The figure: .png, .pdf or .svg. Default: KIND.png.")
    ] = None,
    numbers: Annotated[
        Path | None,
        typer.Option(help="Write the numbers behind the figure to this .csv or .json file."),
    ] = None,
) -> None:
    """Draw a figure of the paper for a network, or for several side by side.

    flatness: vulnerability of each image against its local flatness; the bound.
    surface: the loss around images, along an adversarial and a random direction.
    gradients: what the loss looks at, with alignment and sparsity.
    curve: accuracy against eps.

    [bold]Examples:[/bold]

    art-lfr plot flatness --weights lfr.safetensors --compare standard=standard.safetensors

    art-lfr plot surface --weights robust.safetensors --images 3 --output surface.pdf

    art-lfr plot curve --weights robust.safetensors --eps 0.3 --numbers curve.csv
    """
    from art_lfr.core.arguments import check_integer, check_number

    if not kind:  # older versions of typer let it be missing
        raise UsageError("Missing argument 'KIND'; allowed: flatness, surface, gradients or curve")
    kind = find_name("KIND", kind, IMAGES)
    _refuse_unused(context, kind)
    view = find_name("--view", view, VIEWS)
    output = output or Path(f"{kind}.png")
    check_integer("--points", points, low=2, optional=True)
    options.check_output(output, FIGURE_FORMATS)
    options.check_output(numbers, options.TABLES, "--numbers")
    if kind == "gradients":
        eps = 0.0  # has no ball
    count = IMAGES[kind] if images is None else images
    chosen = known.judged(
        data,
        weights,
        split=split,
        images=count,
        seed=seed,
        model=model,
        eps=eps,
        norm=norm,
        batch_size=batch_size,
        ball=kind != "gradients",
    )
    named = options.attacks_in(attacks)
    first = name or (chosen.recipe.model.rpartition(":")[2] if weights is None else weights.stem)
    others = _comparisons(compare or [], first)
    for path in others.values():
        options.check_file("--compare", path)
    import pandas

    from art_lfr.cli import inputs
    from art_lfr.core.progress import passes_of
    from art_lfr.plots.drawing import require_matplotlib, save_figure
    from art_lfr.storage.files import write_atomically

    require_matplotlib()
    network, loaded, x, y, bounds, lines = inputs.judged(chosen, split, count)
    networks = {first: network}
    for other, path in others.items():
        networks[other] = inputs.other_model(chosen, path, loaded, "--compare")

    settings: dict[str, Any] = {"batch_size": batch_size}
    if kind != "gradients":
        eps, norm = chosen.recipe.eps, chosen.recipe.norm
        settings.update(bounds=bounds, eps=eps, norm=norm, seed=seed)
    if kind in ("flatness", "surface"):
        settings.update(steps=steps, restarts=restarts)
    if kind == "surface":
        settings.update(points=points or SURFACE_POINTS)
    if kind == "curve":
        check_number("--eps", chosen.recipe.eps, low_allowed=False)
        count = points or CURVE_POINTS
        # Without the noise of their rounding, which the numbers would show.
        radii = [float(f"{chosen.recipe.eps * k / count:.12g}") for k in range(1, count + 1)]
        settings.update(eps=radii, attacks=named)
    measure, draw = _functions(kind)
    results = {}
    for key, network in networks.items():
        with passes_of(network, f"{kind} of {key}", shown=True):
            results[key] = measure(network, x, y, **settings)
    inputs.tell(*lines)
    drawn = {"view": view} if kind == "surface" else {}
    save_figure(draw(results, **drawn), output)
    inputs.show(_table(results, f"{kind}: {loaded.name} ({split}), {len(x)} images"))
    inputs.show(f"Figure: {output}")
    if numbers is not None:
        frames = {key: result.to_frame() for key, result in results.items()}
        forms = inputs.table_forms(pandas.concat(frames, names=["network"]).reset_index(0))
        write_atomically(numbers, forms[numbers.suffix]())
        inputs.show(f"Numbers: {numbers}")


def _refuse_unused(context: typer.Context, kind: str) -> None:
    """Raise UsageError for an option that was given and would change nothing."""
    for name, kinds in USED_BY.items():
        source = context.get_parameter_source(name)
        if kind not in kinds and source is not None and source.name != "DEFAULT":
            raise UsageError(
                f"--{name} is {context.params[name]!r} with {kind}, which has no use for it; "
                f"allowed: with {' and '.join(kinds)}"
            )


def _table(results: Mapping[str, Any], title: str) -> Table:
    """The summaries: a row for each number, a column for each network; accuracies in per cent."""
    summaries = [result.summary() for result in results.values()]
    cells = []
    for name in summaries[0]:
        percent = name.startswith("accuracy")
        values = (summary[name] for summary in summaries)
        cells.append([name, *(f"{100 * v:.1f} %" if percent else f"{v:.4g}" for v in values)])
    notes = dict.fromkeys(result.about for result in results.values())
    return Table(["", *results], cells, tuple(notes), title=title)


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


def _comparisons(pairs: Sequence[str], first: str) -> dict[str, Path]:
    """Names and weights of the further networks; ValueError for anything but name=weights."""
    others: dict[str, Path] = {}
    for pair in pairs:
        name, _, weights = pair.partition("=")
        if not name or not weights:
            raise UsageError(
                f"--compare is {pair!r}; allowed: NAME=WEIGHTS, such as std=std.safetensors"
            )
        if name == first or name in others:
            raise UsageError(f"--compare is {pair!r}, a name given twice; allowed: another name")
        others[name] = Path(weights)
    return others
