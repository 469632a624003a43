"""The command `art-lfr evaluate`."""

from __future__ import annotations

from collections.abc import Callable
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
