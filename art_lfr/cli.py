"""The command `art-lfr`: demo, train, flatness, check."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from rich.table import Table

# Torch, ART and this package's modules are imported inside the commands: --help answers at once.

app = typer.Typer(
    name="art-lfr",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Robust training by local flatness regularization (LFR): the loss is kept flat in a ball "
        "of radius eps around each input, so that small changes of the input change little.\n\n"
        "Start with [bold]art-lfr demo[/bold]: about two minutes, no download, no GPU."
    ),
)

ModelOption = Annotated[
    str,
    typer.Option(
        help="digits-cnn, small-cnn (28x28), or module.path:factory, a callable that returns a "
        "torch.nn.Module; the current directory can be imported from."
    ),
]
WeightsOption = Annotated[
    Optional[Path], typer.Option(help="A state dict written by torch.save.")  # noqa: UP045
]
DataOption = Annotated[
    str,
    typer.Option(
        help="digits, or a .npz file with x_train, y_train (and x_test, y_test, x_validation, "
        "y_validation). uint8 images are scaled to \\[0, 1]."
    ),
]
EpsOption = Annotated[float, typer.Option(help="Radius of the ball, in units of the input.")]
NormOption = Annotated[str, typer.Option(help="Norm of the ball: inf, 2 or 1.")]
EstimatorOption = Annotated[
    str, typer.Option(help="finite-difference, or exact (double back-propagation).")
]
RadiusOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Finite-difference radius; default: a multiple of eps."),
]
EpsStepOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Length of an ascent step; default: a multiple of eps / steps."),
]
BatchSizeOption = Annotated[int, typer.Option(help="Samples in a batch.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("art-lfr-demo"),
    seed: SeedOption = 0,
    epochs: Annotated[int, typer.Option(help="Epochs of both trainings.")] = 30,
) -> None:
    """Train a standard and an LFR classifier on digits, attack both, write a report.

    scikit-learn's digits, eps 0.1: about two minutes on one core. Prints the accuracy without an
    attack, under PGD-40, APGD-T and Square, and in the worst case, and the mean flatness. The
    folder gets report.md, results.json and figures.

    [bold]Example:[/bold]  art-lfr demo --output my-report
    """
    from art_lfr.demo import run_demo

    run_demo(output, seed=seed, epochs=epochs)


@app.command()
def train(
    model: ModelOption = "digits-cnn",
    data: DataOption = "digits",
    eps: EpsOption = 0.1,
    norm: NormOption = "inf",
    eps_step: EpsStepOption = None,
    max_iter: Annotated[int, typer.Option(help="Ascent steps.")] = 10,
    lam: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Weight of the penalty; default: a multiple of eps."),
    ] = None,
    estimator: EstimatorOption = "finite-difference",
    radius: RadiusOption = None,
    epochs: Annotated[int, typer.Option(help="Epochs in all, of a resumed run too.")] = 20,
    batch_size: BatchSizeOption = 128,
    lr: Annotated[float, typer.Option(help="Peak of the one-cycle learning rate.")] = 0.1,
    warmup_epochs: Annotated[float, typer.Option(help="eps and lam rise over these.")] = 4.0,
    seed: SeedOption = 0,
    weights: WeightsOption = None,
    checkpoint_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Keep a checkpoint here after each epoch."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --checkpoint-dir.")
    ] = False,
    output: Annotated[
        Path, typer.Option(help="File for the trained weights (a state dict).")
    ] = Path("lfr-weights.pt"),
) -> None:
    """Train a network with LFR and write its weights.

    SGD with momentum 0.9 and a one-cycle learning rate. Validation images, where the data has
    them, are measured after each epoch.

    [bold]Examples:[/bold]

    art-lfr train --data digits --eps 0.1 --output robust.pt

    art-lfr train --model my_nets:make --data my.npz --eps 0.03 --epochs 50

    art-lfr train --checkpoint-dir run1 --resume
    """
    import torch

    from art_lfr.arguments import check_integer, check_number
    from art_lfr.cli_inputs import check_output, load_data, load_model, make_classifier
    from art_lfr.files import write_atomically
    from art_lfr.trainer import AdversarialTrainerLFRPyTorch

    check_output(output, "--output", (".pt", ".pth"))
    check_number("--lr", lr, low_allowed=False)
    check_integer("--epochs", epochs, low=1)
    check_integer("--batch-size", batch_size, low=1)
    check_integer("--seed", seed, low=0)
    images = load_data(data)
    network = load_model(model, weights, seed)
    classifier = make_classifier(network, images, lr)
    trainer = AdversarialTrainerLFRPyTorch(
        classifier,
        norm=norm,
        eps=eps,
        eps_step=eps_step,
        max_iter=max_iter,
        lam=lam,
        estimator=estimator,
        radius=radius,
        warmup_epochs=warmup_epochs,
        seed=seed,
    )
    validated = len(images.x_validation) > 0
    batches = -(-len(images.x_train) // batch_size)
    trainer.fit(
        images.x_train,
        images.y_train,
        validation_data=(images.x_validation, images.y_validation) if validated else None,
        batch_size=batch_size,
        nb_epochs=epochs,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(
            classifier.optimizer, lr, total_steps=epochs * batches + 1
        ),
        scheduler_interval="batch",
        checkpoint_dir=checkpoint_dir,
        resume=resume,
    )
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    write_atomically(output, lambda file: torch.save(state, file))
    _print(_record_table(trainer.history[-1]))
    _print(f"Weights: {output}")


@app.command()
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
) -> None:
    """Measure the local flatness: the largest gradient norm of the loss in each ball.

    Prints mean, median and 95th percentile; small is flat. Each value is a lower bound, found by
    projected ascent.

    [bold]Examples:[/bold]

    art-lfr flatness --weights robust.pt --eps 0.1

    art-lfr flatness --model my_nets:make --data my.npz --output flatness.csv
    """
    import pandas
    from rich.table import Table

    from art_lfr.cli_inputs import check_output, load_data, load_model, part_of, write_table
    from art_lfr.measure import local_flatness
    from art_lfr.models import BUILT_IN
    from art_lfr.results import summary

    if weights is None and model in BUILT_IN:
        raise ValueError(f"--weights is missing; a built-in model ({model}) is untrained without")
    if output is not None:
        check_output(output, "--output", (".csv", ".json"))
    images = load_data(data)
    x, y = part_of(images, split)
    values = local_flatness(
        load_model(model, weights),
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
    table = Table(title=f"Local flatness: {images.name} ({split}), eps {eps:g}, norm {norm}")
    for title in ("samples", "mean", "median", "95th percentile"):
        table.add_column(title, justify="right")
    table.add_row(str(len(values)), *(f"{value:.4g}" for value in summary(values).values()))
    _print(table)
    if output is not None:
        columns = {"index": range(len(values)), "label": y, "flatness": values}
        write_table(pandas.DataFrame(columns), output)
        _print(f"Values: {output}")


@app.command()
def check(
    model: ModelOption = "digits-cnn",
    weights: WeightsOption = None,
    data: DataOption = "digits",
    estimator: EstimatorOption = "finite-difference",
    batch_size: BatchSizeOption = 128,
) -> None:
    """Name each layer and setting that does not go with LFR, and the mend.

    Tries the network on a few training images. The exit status is 1 where an error was found, and
    0 where nothing or warnings only were.

    [bold]Examples:[/bold]

    art-lfr check --model my_nets:make --data my.npz

    art-lfr check --model my_nets:make --estimator exact --batch-size 8
    """
    from art_lfr.check import check_model
    from art_lfr.cli_inputs import load_data, load_model

    images = load_data(data)
    findings = check_model(
        load_model(model, weights),
        images.x_train,
        estimator=estimator,
        batch_size=batch_size,
        bounds=images.bounds,
    )
    if not findings:
        _print("Nothing found: the model and the data go with LFR.")
    for finding in findings:
        style = "red" if finding.severity == "error" else "yellow"
        _print(f"[bold {style}]{finding.severity}[/] [bold]{_escaped(finding.layer)}[/]")
        _print(f"  {_escaped(finding.problem)}\n  [dim]mend:[/] {_escaped(finding.mend)}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0, 1 (failed), 2 (bad usage, one line on stderr), 130."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status = app(args=given, prog_name="art-lfr", standalone_mode=False)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except Exception as error:
        # Typer's own errors come from its copy of click in new versions, from click in old ones.
        if hasattr(error, "format_message"):
            return _fail(error.format_message(), 2)
        if type(error).__name__ == "TrainingError":
            return _fail(str(error), 1)
        raise
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    if line := " ".join(message.split()):
        print(f"art-lfr: error: {line}", file=sys.stderr)
    return status


def _print(content: Any) -> None:
    from rich.console import Console

    Console(highlight=False).print(content, soft_wrap=not hasattr(content, "columns"))


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _record_table(record: dict[str, float]) -> Table:
    """The last epoch, in words."""
    from rich.table import Table

    table = Table(title=f"Epoch {record['epoch']:.0f}", show_header=False)
    for name, value in record.items():
        if name != "epoch":
            shown = f"{100 * value:.1f} %" if name.endswith("accuracy") else f"{value:.4g}"
            table.add_row(name.replace("_", " "), shown)
    return table


if __name__ == "__main__":
    sys.exit(main())
