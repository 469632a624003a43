"""The commands that look at a model: flatness and check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from art_lfr.cli.options import (
    BatchSizeOption,
    DataOption,
    EpsOption,
    EstimatorOption,
    JsonOption,
    ModelOption,
    NormOption,
    SeedOption,
    WeightsOption,
)


def flatness(
    model: ModelOption = "digits-cnn",
    weights: WeightsOption = None,
    data: DataOption = "digits",
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    eps: EpsOption = 0.1,
    norm: NormOption = "inf",
    steps: Annotated[int, typer.Option(help="Ascent steps.")] = 20,
    estimator: EstimatorOption = "finite-difference",
    batch_size: BatchSizeOption = 256,
    seed: SeedOption = 0,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write one value per sample to this .csv or .json file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the local flatness: the largest gradient norm of the loss in each ball.

    Prints mean, median and 95th percentile; small is flat.
    Each value is a lower bound, found by projected ascent.

    [bold]Examples:[/bold]

    art-lfr flatness --weights robust.pt --eps 0.1

    art-lfr flatness --model my_nets:make --data my.npz --output flatness.csv
    """
    import pandas
    from rich.table import Table

    from art_lfr.cli.inputs import judged, show, show_json, write_table
    from art_lfr.evaluation.results import summary
    from art_lfr.measure import local_flatness
    from art_lfr.storage.files import check_output

    if output is not None:
        check_output(output, "--output", (".csv", ".json"))
    network, images, x, y = judged(model, weights, data, split, None)
    values = local_flatness(
        network,
        x,
        y,
        eps=eps,
        norm=norm,
        steps=steps,
        estimator=estimator,
        bounds=images.bounds,
        batch_size=batch_size,
        seed=seed,
    )
    found = summary(values)
    if as_json:
        settings = {"data": images.name, "split": split, "eps": eps, "norm": norm}
        show_json({**settings, "samples": len(values), **found})
    else:
        table = Table(title=f"Local flatness: {images.name} ({split}), eps {eps:g}, norm {norm}")
        for title in ("samples", "mean", "median", "95th percentile"):
            table.add_column(title, justify="right")
        table.add_row(str(len(values)), *(f"{value:.4g}" for value in found.values()))
        show(table)
    if output is not None:
        columns = {"index": range(len(values)), "label": y, "flatness": values}
        write_table(pandas.DataFrame(columns), output)
        typer.echo(f"Written: {output}", err=True)


def check(
    model: ModelOption = "digits-cnn",
    weights: WeightsOption = None,
    data: DataOption = "digits",
    estimator: EstimatorOption = "finite-difference",
    batch_size: BatchSizeOption = 128,
    as_json: JsonOption = False,
) -> None:
    """Name each layer and setting that does not go with LFR, and the mend.

    Tries the network on a few training images.
    The exit status is 1 where an error was found, and 0 otherwise.

    [bold]Examples:[/bold]

    art-lfr check --model my_nets:make --data my.npz

    art-lfr check --model my_nets:make --estimator exact --batch-size 8
    """
    from art_lfr.check.model import check_model
    from art_lfr.cli.inputs import escaped, load_data, load_model, outputs_for, show, show_json

    images = load_data(data)
    findings = check_model(
        load_model(model, weights, classes=outputs_for(images)),
        images.x_train,
        estimator=estimator,
        batch_size=batch_size,
        bounds=images.bounds,
    )
    if as_json:
        show_json([asdict(finding) for finding in findings])
    elif not findings:
        show("Nothing found: the model and the data go with LFR.")
    for finding in () if as_json else findings:
        style = "red" if finding.severity == "error" else "yellow"
        show(f"[bold {style}]{finding.severity}[/] [bold]{escaped(finding.layer)}[/]")
        show(f"  {escaped(finding.problem)}\n  [dim]mend:[/] {escaped(finding.mend)}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)
