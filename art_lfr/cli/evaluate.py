"""The commands that look at a network: evaluate, masking, flatness and check."""

from __future__ import annotations

import json
from collections.abc import Callable
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

FORMATS = (".json", ".md", ".tex", ".csv")


def evaluate(
    model: ModelOption = "digits-cnn",
    weights: WeightsOption = None,
    data: DataOption = "digits",
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    images: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="The first so many images; default: all."),
    ] = None,
    eps: EpsOption = 0.1,
    norm: NormOption = "inf",
    attacks: Annotated[
        str,
        typer.Option(
            help="Presets (quick, paper, autoattack) and attacks (FGSM, PGD, PGD-40, MI-PGD, JSMA, "
            "DDN-L2, pointwise, APGD-CE, APGD-T, Square, AutoAttack), with commas between."
        ),
    ] = "quick",
    metrics: Annotated[
        str, typer.Option(help="clever_u, loss_sensitivity, or both with a comma.")
    ] = "",
    batch_size: BatchSizeOption = 256,
    seed: SeedOption = 0,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the result here: .json, .md, .tex or .csv."),
    ] = None,
    save_adversarial: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the adversarial examples to this .npz file."),
    ] = None,
    state_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Keep finished attacks here; the same command goes on from there."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Attack a network and print its accuracy, the worst case and the local flatness.

    Each row has its number of images and its 95 % interval.
    A figure to publish needs AutoAttack: --attacks autoattack.

    [bold]Examples:[/bold]

    art-lfr evaluate --weights robust.pt --eps 0.1

    art-lfr evaluate --weights robust.pt --attacks paper,autoattack --images 200

    art-lfr evaluate --model my_nets:make --weights robust.pt --data my.npz --output table.tex
    """
    from art_lfr.cli.inputs import judged
    from art_lfr.core.arguments import check_integer
    from art_lfr.evaluation.run import evaluate as run
    from art_lfr.storage.files import check_output, write_atomically

    check_integer("--images", images, low=1, optional=True)
    if output is not None:
        check_output(output, "--output", FORMATS)
    network, loaded, x, y = judged(model, weights, data, split, images)

    found = run(
        network,
        x,
        y,
        eps=eps,
        norm=norm,
        attacks=_split(attacks),
        bounds=loaded.bounds,
        batch_size=batch_size,
        seed=seed,
        metrics=_split(metrics),
        save_adversarial=save_adversarial,
        state_dir=state_dir,
        verbose=True,
    )
    typer.echo(found.to_json() if as_json else str(found))
    if output is not None:
        forms: dict[str, Callable[[], str]] = {
            ".json": found.to_json,
            ".md": found.to_markdown,
            ".tex": found.to_latex,
            ".csv": lambda: found.to_frame().to_csv(index=False),
        }
        write_atomically(output, forms[output.suffix]())
        typer.echo(f"Written: {output}", err=True)


def _split(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def masking(
    model: ModelOption = "digits-cnn",
    weights: WeightsOption = None,
    data: DataOption = "digits",
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    images: Annotated[int, typer.Option(help="The first so many images.")] = 200,
    eps: EpsOption = 0.1,
    norm: NormOption = "inf",
    surrogate: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Weights of the same network, trained without a defence, for the transfer check."
        ),
    ] = None,
    batch_size: BatchSizeOption = 256,
    seed: SeedOption = 0,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the report to this .json or .md file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for signs that gradients mislead the attacks, and accuracies lie.

    The exit status is 1 where gradient masking is likely, and 0 otherwise.

    [bold]Examples:[/bold]

    art-lfr masking --weights robust.pt --eps 0.1

    art-lfr masking --weights robust.pt --surrogate standard.pt --output masking.md
    """
    from art_lfr.cli.inputs import judged, trained_model
    from art_lfr.core.arguments import check_integer
    from art_lfr.masking.report import masking_report
    from art_lfr.storage.files import check_output, write_atomically

    check_integer("--images", images, low=1)
    if output is not None:
        check_output(output, "--output", (".json", ".md"))
    network, loaded, x, y = judged(model, weights, data, split, images)
    found = masking_report(
        network,
        x,
        y,
        eps=eps,
        norm=norm,
        bounds=loaded.bounds,
        surrogate=None
        if surrogate is None
        else trained_model(model, surrogate, loaded, "--surrogate"),
        batch_size=batch_size,
        seed=seed,
    )
    plain = json.dumps(found.to_dict(), indent=1) + "\n"
    typer.echo(plain if as_json else str(found), nl=not as_json)
    if output is not None:
        write_atomically(output, plain if output.suffix == ".json" else found.to_markdown())
        typer.echo(f"Written: {output}", err=True)
    if found.masked:
        raise typer.Exit(1)


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
