"""The commands that train: demo, train, tune and compare."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from art_lfr.cli import options
from art_lfr.cli.known import resolve
from art_lfr.core.keywords import TrainerKeywords
from art_lfr.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from art_lfr.core.arguments import Array
    from art_lfr.data import ImageData
    from art_lfr.tuning import Trial


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("art-lfr-demo"),
    seed: options.Seed = 0,
    epochs: Annotated[int, typer.Option(help="Epochs of both trainings.")] = 30,
) -> None:
    """Train a standard and an LFR classifier on digits, attack both, write a report.

    scikit-learn's digits at eps 0.1: two to three minutes on one core.
    Prints the accuracy clean, under PGD-40, APGD-T and Square, and in the worst case.
    The folder gets report.md, results.json, figures and both networks (.safetensors).

    [bold]Example:[/bold]  art-lfr demo --output my-report
    """
    from art_lfr.demo.run import run_demo

    run_demo(output, seed=seed, epochs=epochs)


@options.with_options_of(TrainerKeywords)
def train(
    model: options.Model = None,
    data: options.Data = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    eps_step: Annotated[
        float | None,
        typer.Option(help="Length of an ascent step; default: a multiple of eps / steps."),
    ] = None,
    max_iter: options.MaxIter = 10,
    penalty: Annotated[
        str, typer.Option(help='"lfr", "lfr-held" or another one of art_lfr.penalties.')
    ] = "lfr",
    epochs: Annotated[
        int, typer.Option(help="Epochs in all; a resumed run keeps to its own.")
    ] = 20,
    batch_size: options.BatchSize = 128,
    lr: options.LearningRate = 0.1,
    seed: options.Seed = 0,
    weights: options.Weights = None,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Keep a checkpoint here after each epoch.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --checkpoint-dir.")
    ] = False,
    output: Annotated[
        Path,
        typer.Option(
            help="File for the trained weights: .safetensors, which says what it is; or .pt, a "
            "plain state dict."
        ),
    ] = Path("lfr-weights.safetensors"),
    as_json: options.Json = False,
    **settings: Any,
) -> None:
    """Train a network with LFR and write its weights.

    SGD with momentum 0.9 and a one-cycle learning rate.
    Validation images, where there are any, are measured after each epoch.

    [bold]Examples:[/bold]

    art-lfr train --data digits --eps 0.1 --output robust.safetensors

    art-lfr train --model my_nets:make --data my.npz --eps 0.03 --epochs 50

    art-lfr train --checkpoint-dir run1 --resume

    accelerate launch --multi_gpu --num_processes 2 -m art_lfr train
    """
    import torch

    from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
    from art_lfr.cli import inputs
    from art_lfr.core.arguments import check_number
    from art_lfr.data import NAMES
    from art_lfr.models.files import check_savable
    from art_lfr.storage.files import write_atomically
    from art_lfr.storage.info import ENDING
    from art_lfr.training.options import check_fit_arguments
    from art_lfr.training.processes import Processes

    inputs.check_output(output, (".safetensors", ".pt", ".pth"))
    check_number("--lr", lr, low_allowed=False)
    _check_counts(epochs, batch_size, seed)
    processes = Processes()  # before the classifier: it has the GPU of this process
    chosen = resolve(weights, model=model, data=data, eps=eps, norm=norm)
    images = inputs.load_data(chosen.data)
    network = inputs.load_model(chosen.model, weights, seed, inputs.outputs_for(images))
    classifier = inputs.make_classifier(network, images, lr)
    if output.suffix == ENDING:
        check_savable(classifier.model, chosen.model, classifier.nb_classes)
    trainer = AdversarialTrainerLFRPyTorch(
        classifier,
        norm=chosen.norm,
        eps=chosen.eps,
        eps_step=eps_step,
        max_iter=max_iter,
        penalty=penalty,
        seed=seed,
        **cast(TrainerKeywords, options.without_missing(settings)),
    )
    check_fit_arguments(epochs, checkpoint_dir, resume)
    inputs.tell(*chosen.lines)
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
    if not processes.main:
        return
    if output.suffix == ENDING:
        named = chosen.data if chosen.data in NAMES else Path(chosen.data).name
        trainer.save(output, model=chosen.model, data=named)
    else:
        state = {name: value.cpu() for name, value in classifier.model.state_dict().items()}
        write_atomically(output, lambda file: torch.save(state, file))
    if as_json:
        inputs.show_json(trainer.history)
    else:
        inputs.show(_record_table(trainer.history[-1]))
        inputs.show(f"Weights: {output}")


def _check_counts(epochs: int, batch_size: int, seed: int) -> None:
    from art_lfr.core.arguments import check_integer, check_seed

    check_integer("--epochs", epochs, low=1)
    check_integer("--batch-size", batch_size, low=1)
    check_seed("--seed", seed)


def _record_table(record: dict[str, float]) -> Table:
    """The last epoch, in words."""
    from rich.table import Table

    table = Table(title=f"Epoch {record['epoch']:.0f}", show_header=False)
    for name, value in record.items():
        if name != "epoch":
            shown = f"{100 * value:.1f} %" if name.endswith("accuracy") else f"{value:.4g}"
            table.add_row(name.replace("_", " "), shown)
    return table


def tune(
    model: options.Model = None,
    data: options.Data = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    minutes: Annotated[float, typer.Option(help="Budget for training and judging.")] = 30.0,
    clean_floor: Annotated[
        float | None,
        typer.Option(help="Least clean accuracy on held-out images, such as 0.97; default: any."),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option(
            help="Images to judge on: the first validation images of --data, or its last training "
            "images where it has none. Default: at most 1,000, and a fifth of the training images."
        ),
    ] = None,
    train: Annotated[
        int | None,
        typer.Option(
            help="Number of training images, the first ones; default: all that are not held out."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of each trial.")] = 20,
    batch_size: options.BatchSize = 128,
    lr: options.LearningRate = 0.1,
    max_iter: options.MaxIter = 10,
    estimator: options.Estimator = "finite-difference",
    penalty: Annotated[str, typer.Option(help='A form of LFR: "lfr", "lfr-held".')] = "lfr",
    warmup_epochs: Annotated[float, typer.Option(help="eps and lam rise over these.")] = 2.0,
    attacks: Annotated[
        str, typer.Option(help="Attacks that judge, as in evaluate, with commas between.")
    ] = "APGD-CE,Square",
    seed: options.Seed = 0,
    weights: options.Weights = None,
    state_dir: Annotated[
        Path, typer.Option(help="Keep finished trials here; the same command goes on from there.")
    ] = Path("art-lfr-tuning"),
    output: Annotated[
        Path | None, typer.Option(help="Write the proposal and all trials to this .json file.")
    ] = None,
    as_json: options.Json = False,
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

    from art_lfr.cli import inputs
    from art_lfr.core.arguments import check_integer, check_number
    from art_lfr.tuning.run import check_floor, check_penalty
    from art_lfr.tuning.run import tune as run

    inputs.check_output(output, (".json",))
    chosen = resolve(weights, model=model, data=data, eps=eps, norm=norm)
    for name, length in (("--eps", chosen.eps), ("--minutes", minutes), ("--lr", lr)):
        check_number(name, length, low_allowed=False)
    check_floor("--clean-floor", clean_floor)
    check_penalty("--penalty", penalty)
    _check_counts(epochs, batch_size, seed)
    check_integer("--max-iter", max_iter, low=1)
    images = inputs.load_data(chosen.data, test=0)
    x, y, reserved = _parts(images, train, held_out)
    inputs.tell(*chosen.lines)

    def classifier() -> Any:
        network = inputs.load_model(chosen.model, weights, seed, inputs.outputs_for(images))
        return inputs.make_classifier(network, images, lr)

    def one_cycle(optimizer: Any, batches: int) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=batches + 1)

    def tell(trial: Trial) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in vars(trial.candidate).items())
        typer.echo(
            f"{shown}: clean {100 * trial.clean_accuracy:.1f} %, worst case "
            f"{100 * trial.robust_accuracy:.1f} % ({trial.seconds:.0f} s)",
            err=True,
        )

    # What `art-lfr train` takes too.
    shared: dict[str, Any] = {
        "eps": chosen.eps,
        "norm": chosen.norm,
        "max_iter": max_iter,
        "estimator": estimator,
        "penalty": penalty,
        "epochs": epochs,
        "batch_size": batch_size,
        "warmup_epochs": warmup_epochs,
        "seed": seed,
    }
    tuning = run(
        classifier,
        x,
        y,
        minutes=minutes,
        clean_floor=clean_floor,
        held_out=reserved,
        make_scheduler=one_cycle,
        attacks=options.names_in(attacks),
        state_dir=state_dir,
        callback=tell,
        **shared,
    )
    typer.echo(tuning.to_json() if as_json else str(tuning), nl=not as_json)
    lengths = {name: f"{getattr(tuning, name):.8g}" for name in ("lam", "radius", "eps_step")}
    settings = {"model": chosen.model, "data": chosen.data, **shared, **lengths, "lr": lr}
    if weights is not None:
        settings["weights"] = weights
    line = f"To train with it, on all training images:\n\n{_command('train', settings)}"
    typer.echo(line, err=as_json)
    inputs.write_output(output, {".json": tuning.to_json})
    if not tuning.reaches_floor:
        raise typer.Exit(1)


def _parts(
    images: ImageData, train: int | None, held_out: int | None
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Images and labels to train on, and those to judge on."""
    from art_lfr.core.arguments import check_integer
    from art_lfr.tuning.trial import usual_count

    validation, pool = len(images.y_validation), len(images.y_train)
    most = validation or pool - 1
    count = held_out if held_out is not None else min(usual_count(pool), validation or pool)
    check_integer("--held-out", count, low=1)
    if count > most:
        part = "the validation images" if validation else "one less than the training images"
        raise UsageError(f"--held-out is {count}; allowed: at most {most}, {part}")
    check_integer("--train", train, low=1, optional=True)
    left = pool if validation else pool - count
    if train is not None and train > left:
        raise UsageError(f"--train is {train}; allowed: at most {left}, those not held out")
    parted = images.take(train=train, validation=count)
    return parted.x_train, parted.y_train, (parted.x_validation, parted.y_validation)


def _command(name: str, settings: dict[str, object]) -> str:
    """A command line, broken between options, to be pasted into a shell."""
    lines = [f"art-lfr {name}"]
    for option, value in settings.items():
        word = f"--{option.replace('_', '-')} {shlex.quote(str(value))}"
        if len(lines[-1]) + len(word) + len("  \\") > 80:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def compare(
    plan: Annotated[Path, typer.Argument(help="YAML file: data, networks, methods, seeds.")],
    output: Annotated[
        Path, typer.Option(help="Folder for weights, results, tables and figures.")
    ] = Path("art-lfr-comparison"),
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plan lie.")] = Path(),
    only: Annotated[str, typer.Option(help="Run the methods whose name contains this.")] = "",
    names: Annotated[str, typer.Option(help="Do the comparisons whose name contains this.")] = "",
    known: Annotated[
        Path | None,
        typer.Option(help="Folder of earlier NAME.json files: what they hold is not repeated."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Cores for each run; times are of one core.")] = 1,
    tables: Annotated[
        bool, typer.Option("--tables", help="Train nothing; write what is finished.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train methods side by side and tabulate accuracy, flatness and time.

    Runs that are finished are not repeated; a killed one goes on after its last epoch. Start the
    command again beside itself to use more cores: each run is done by one of the processes.
    Each comparison gets NAME.json, NAME.md, NAME.tex and, with matplotlib, NAME.png in --output.

    [bold]Example plan:[/bold]

    {name: mine, data: digits, model: digits-cnn, eps: 0.1, epochs: 30, seeds: [0, 1],
     methods: [{name: AT, kind: pgd}, {name: TRADES, kind: trades}, {name: LFR, kind: lfr}]}

    [bold]Example:[/bold]  art-lfr compare plan.yaml --output results
    """
    import torch

    from art_lfr.cli import inputs
    from art_lfr.comparison.plan import RUNS, read_plan
    from art_lfr.comparison.results import Results, table, to_markdown, write_report
    from art_lfr.comparison.runner import run_all, take_known
    from art_lfr.core.arguments import check_integer
    from art_lfr.storage.files import as_path, check_output, held, make_directory

    check_integer("--threads", threads, low=1)
    chosen = [comparison for comparison in read_plan(plan) if names in comparison.name]
    if not chosen:
        raise UsageError(f"--names is {names!r}; allowed: a part of a name in {str(plan)!r}")
    for name, folder in (("--known", known), ("--data-dir", data_dir)):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{name} is {str(folder)!r}; allowed: a folder")
    output, data_dir = as_path("--output", output), as_path("--data-dir", data_dir)
    shared = output / RUNS
    make_directory(shared, "--output")
    for comparison in chosen:  # before hours of training
        for ending in (".json", ".md", ".tex", ".png"):
            check_output(output / f"{comparison.name}{ending}", "--output")
    # Known runs and tables are the same files, under the same temporary names, for every process
    # that shares the folder.
    printed: dict[str, object] = {}
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for comparison in chosen:
            if known is not None:
                with held(shared / "lock", wait=True):
                    taken = take_known(comparison, known, output)
                if taken:
                    typer.echo(f"{comparison.name}: {taken} runs taken from {known}", err=True)
            if not tables:
                run_all(
                    comparison,
                    output,
                    factory=lambda name, seed, classes: inputs.load_model(
                        name, None, seed, classes
                    ),
                    data_dir=data_dir,
                    only=only,
                    tell=lambda line: typer.echo(line, err=True),
                )
            with held(shared / "lock", wait=True):
                results = Results.read(comparison, output)
                if results.runs:
                    write_report(results, output)
            if not results.runs:
                typer.echo(f"{comparison.name}: no finished run", err=True)
            elif as_json:
                printed[comparison.name] = table(results).to_dict(orient="records")
            else:
                typer.echo(to_markdown(results))
    finally:
        torch.set_num_threads(threads_before)
    if as_json:
        inputs.show_json(printed)
