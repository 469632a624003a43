"""The command `art-lfr masking`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from art_lfr.cli.options import (
    BatchSizeOption,
    DataOption,
    EpsOption,
    JsonOption,
    ModelOption,
    NormOption,
    SeedOption,
    WeightsOption,
)


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
