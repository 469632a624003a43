"""The command that chooses the settings of LFR."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

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
from art_lfr.errors import UsageError

if TYPE_CHECKING:
    from art_lfr.core.arguments import Array
    from art_lfr.data import ImageData
    from art_lfr.tuning import Trial

WIDTH = 80


def tune(
    model: ModelOption = "digits-cnn",
    data: DataOption = "digits",
    eps: EpsOption = 0.1,
    norm: NormOption = "inf",
    minutes: Annotated[float, typer.Option(help="Budget for training and judging.")] = 30.0,
    clean_floor: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Least clean accuracy on held-out images, such as 0.97; default: any."),
    ] = None,
    held_out: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Images to judge on: the first validation images of --data, or its last training "
            "images where it has none. Default: at most 1,000, and a fifth of the training images."
        ),
    ] = None,
    train: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Train on the first so many images; default: all that are not held out."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of each trial.")] = 20,
    batch_size: BatchSizeOption = 128,
    lr: Annotated[float, typer.Option(help="Peak of the one-cycle learning rate.")] = 0.1,
    max_iter: Annotated[int, typer.Option(help="Ascent steps.")] = 10,
    estimator: EstimatorOption = "finite-difference",
    penalty: Annotated[str, typer.Option(help='A form of LFR: "lfr", "lfr-held".')] = "lfr",
    warmup_epochs: Annotated[float, typer.Option(help="eps and lam rise over these.")] = 2.0,
    attacks: Annotated[
        str, typer.Option(help="Attacks that judge, as in evaluate, with commas between.")
    ] = "APGD-CE,Square",
    seed: SeedOption = 0,
    weights: WeightsOption = None,
    state_dir: Annotated[
        Path,
        typer.Option(help="Keep finished trials here; the same command goes on from there."),
    ] = Path("art-lfr-tuning"),
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the proposal and all trials to this .json file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Propose --lam, --radius and --eps-step for `art-lfr train`.

    Trains with the defaults first, then with settings around them, while --minutes last.
    Judges them on held-out training images; test images are not used.
    Proposes the default unless another is better by more than the noise.
    The exit status is 1 where no setting reaches --clean-floor.

    [bold]Examples:[/bold]

    art-lfr tune --data digits --eps 0.1 --minutes 5

    art-lfr tune --model small-cnn --data mnist --eps 0.3 --minutes 30
    --clean-floor 0.97 --epochs 5 --train 10000 --output tuning.json
    """
    import torch

    from art_lfr.cli.inputs import load_model, make_classifier, outputs_for
    from art_lfr.core.arguments import check_integer, check_number
    from art_lfr.data import check_data_name, load
    from art_lfr.storage.files import check_output, write_atomically
    from art_lfr.tuning.run import check_floor, check_penalty
    from art_lfr.tuning.run import tune as run

    if output is not None:
        check_output(output, "--output", (".json",))
    if state_dir.exists() and not state_dir.is_dir():
        raise UsageError(f"--state-dir is {str(state_dir)!r}, a file; allowed: a directory")
    for name, length in (("--eps", eps), ("--minutes", minutes), ("--lr", lr)):
        check_number(name, length, low_allowed=False)
    check_floor("--clean-floor", clean_floor)
    check_penalty("--penalty", penalty)
    for name, count in (("--epochs", epochs), ("--batch-size", batch_size)):
        check_integer(name, count, low=1)
    check_integer("--max-iter", max_iter, low=1)
    check_integer("--seed", seed, low=0)
    check_data_name("--data", data)
    images = load(data, test=0)
    x, y, judged = _parts(images, train, held_out)

    def classifier() -> Any:
        network = load_model(model, weights, seed, outputs_for(images))
        return make_classifier(network, images, lr)

    def one_cycle(optimizer: Any, batches: int) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=batches + 1)

    def tell(trial: Trial) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in vars(trial.candidate).items())
        typer.echo(
            f"{shown}: clean {100 * trial.clean_accuracy:.1f} %, worst case "
            f"{100 * trial.robust_accuracy:.1f} % ({trial.seconds:.0f} s)",
            err=True,
        )

    found = run(
        classifier,
        x,
        y,
        eps=eps,
        norm=norm,
        minutes=minutes,
        clean_floor=clean_floor,
        held_out=judged,
        epochs=epochs,
        batch_size=batch_size,
        max_iter=max_iter,
        make_scheduler=one_cycle,
        attacks=[name.strip() for name in attacks.split(",") if name.strip()],
        seed=seed,
        state_dir=state_dir,
        callback=tell,
        estimator=estimator,
        penalty=penalty,
        warmup_epochs=warmup_epochs,
    )
    if as_json:
        typer.echo(found.to_json(), nl=False)
    else:
        typer.echo(str(found))
    lengths = {"--lam": found.lam, "--radius": found.radius, "--eps-step": found.eps_step}
    others: dict[str, object] = {
        "--model": model,
        "--data": data,
        "--eps": eps,
        "--norm": norm,
        **{name: f"{value:.8g}" for name, value in lengths.items()},
        "--max-iter": max_iter,
        "--estimator": estimator,
        "--penalty": penalty,
        "--epochs": epochs,
        "--batch-size": batch_size,
        "--lr": lr,
        "--warmup-epochs": warmup_epochs,
        "--seed": seed,
        **({} if weights is None else {"--weights": weights}),
    }
    line = f"To train with it, on all training images:\n\n{_command('train', others)}"
    typer.echo(line, err=as_json)
    if output is not None:
        write_atomically(output, found.to_json())
        typer.echo(f"Written: {output}", err=True)
    if not found.reaches_floor:
        raise typer.Exit(1)


def _parts(
    images: ImageData, train: int | None, held_out: int | None
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Images and labels to train on, and those to judge on."""
    from art_lfr.core.arguments import check_integer
    from art_lfr.tuning.held_out import usual_count

    own, pool = len(images.y_validation), len(images.y_train)
    count = held_out if held_out is not None else usual_count(pool)
    if held_out is None and own:
        count = min(count, own)
    check_integer("--held-out", count, low=1)
    if count > (own or pool - 1):
        part = "the validation images" if own else "one less than the training images"
        raise UsageError(f"--held-out is {count}; allowed: at most {own or pool - 1}, {part}")
    check_integer("--train", train, low=1, optional=True)
    left = pool if own else pool - count
    if train is not None and train > left:
        raise UsageError(f"--train is {train}; allowed: at most {left}, those not held out")
    parted = images.take(train=train, validation=count)
    return parted.x_train, parted.y_train, (parted.x_validation, parted.y_validation)


def _command(name: str, options: dict[str, object]) -> str:
    """A command line, broken between options, to be pasted into a shell."""
    lines = [f"art-lfr {name}"]
    for option, value in options.items():
        word = f"{option} {shlex.quote(str(value))}"
        if len(lines[-1]) + len(word) + len("  \\") > WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)
