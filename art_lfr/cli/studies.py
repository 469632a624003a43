"""The commands that train many networks: tune and compare."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_lfr.cli import known, options
from art_lfr.core import progress
from art_lfr.core.arguments import (
    check_choice,
    check_integer,
    check_number,
    check_share,
    part_for,
)
from art_lfr.core.names import GRADIENT_NORMS, find_name, parse_norm
from art_lfr.core.settings import ESTIMATORS
from art_lfr.core.tables import WIDTH
from art_lfr.data.recipes import RecipeKeywords
from art_lfr.errors import UsageError

if TYPE_CHECKING:
    from art_lfr.core.arguments import Array
    from art_lfr.data import ImageData
    from art_lfr.tuning import Trial


@options.with_options_of({RecipeKeywords: options.TRAINING})
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
    max_iter: options.MaxIter = None,
    estimator: options.Estimator = "finite-difference",
    penalty: Annotated[str, typer.Option(help='A form of LFR: "lfr", "lfr-held".')] = "lfr",
    warmup_epochs: Annotated[
        float | None,
        typer.Option(help="eps and lam rise over these. Default: those of --data."),
    ] = None,
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
    **settings: Any,
) -> None:
    """Propose --lam, --radius and --eps-step for `art-lfr train`.

    Trains first as `art-lfr train` does for --data, then with other settings.
    Judges on held-out training images; test images are not used.
    Proposes the first unless another is better by more than the noise.
    The exit status is 1 where no setting reaches --clean-floor.

    [bold]Examples:[/bold]

    art-lfr tune --data digits --eps 0.1 --minutes 5

    art-lfr tune --model small-cnn --data mnist --eps 0.3 --minutes 30 \\
        --clean-floor 0.97 --epochs 5 --train 10000 --output tuning.json
    """
    options.check_output(output, (".json",))
    chosen = known.settings_of(
        data,
        weights,
        seed=seed,
        model=model,
        eps=eps,
        norm=norm,
        max_iter=max_iter,
        **part_for(settings, RecipeKeywords),
    )
    recipe = chosen.recipe
    check_number("--eps", recipe.eps, low_allowed=False)
    check_number("--minutes", minutes, low_allowed=False)
    check_integer("--max-iter", recipe.max_iter, low=1)
    check_number("--warmup-epochs", warmup_epochs, optional=True)
    check_share("--clean-floor", clean_floor)
    check_integer("--held-out", held_out, low=1, optional=True)
    check_integer("--train", train, low=1, optional=True)
    penalty = find_name("--penalty", penalty, GRADIENT_NORMS)
    check_choice("--estimator", estimator, ESTIMATORS)
    judges = options.attacks_in(attacks)

    from art_lfr.art.by_recipe import make_classifier, one_cycle
    from art_lfr.cli import inputs
    from art_lfr.data.augmentation import BY_NAME
    from art_lfr.tuning.results import default_candidate
    from art_lfr.tuning.run import tune as run

    images = inputs.load_data(recipe.data, test=0)
    x, y, reserved = _parts(images, train, held_out)
    inputs.tell(*chosen.lines)

    def classifier() -> Any:
        network = inputs.load_model(recipe.model, weights, seed, inputs.outputs_for(images))
        classes = inputs.count_classes(network, images.x_train, images.y_train)
        return make_classifier(network, images, recipe, classes)

    def tell(trial: Trial) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in vars(trial.candidate).items())
        typer.echo(
            f"{shown}: clean {100 * trial.clean_accuracy:.1f} %, worst case "
            f"{100 * trial.robust_accuracy:.1f} % ({trial.seconds:.0f} s)",
            err=True,
        )

    # What `art-lfr train` takes too.
    shared: dict[str, Any] = {
        "eps": recipe.eps,
        "norm": recipe.norm,
        "max_iter": recipe.max_iter,
        "estimator": estimator,
        "penalty": penalty,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "warmup_epochs": recipe.objective()["warmup_epochs"]
        if warmup_epochs is None
        else warmup_epochs,
        "seed": seed,
    }
    # What `art-lfr train` would take, as multiples of eps.
    own = {
        name: getattr(recipe, name) for name in recipe.objective(penalty).keys() & {"lam", "radius"}
    }
    default = default_candidate(parse_norm(recipe.norm), recipe.max_iter)
    augment = BY_NAME[recipe.augmentation]
    augmented: dict[str, Any] = {} if augment is None else {"augment": augment}
    tuning = run(
        classifier,
        x,
        y,
        minutes=minutes,
        clean_floor=clean_floor,
        held_out=reserved,
        make_scheduler=lambda optimizer, steps: one_cycle(optimizer, recipe, steps),
        attacks=judges,
        state_dir=state_dir,
        callback=tell,
        reference=replace(default, **own),
        verbose=sys.stderr.isatty(),
        **shared,
        **augmented,
    )
    typer.echo(tuning.to_json() if as_json else str(tuning), nl=not as_json)
    lengths = {name: f"{getattr(tuning, name):.8g}" for name in ("lam", "radius", "eps_step")}
    optimized = ("lr", "optimizer", "weight_decay", "augmentation")
    written: dict[str, object] = {"model": recipe.model, "data": recipe.data, **shared, **lengths}
    written |= {name: getattr(recipe, name) for name in optimized}
    if weights is not None:
        written["weights"] = weights
    line = f"To train with it, on all training images:\n\n{options.command_line('train', written)}"
    typer.echo(line, err=as_json)
    inputs.write_output(output, {".json": tuning.to_json})
    if not tuning.reaches_floor:
        raise typer.Exit(1)


def _parts(
    images: ImageData, train: int | None, held_out: int | None
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Images and labels to train on, and those to judge on."""
    from art_lfr.tuning.trial import usual_count

    validation, pool = len(images.y_validation), len(images.y_train)
    most = validation or pool - 1
    count = held_out if held_out is not None else min(usual_count(pool), validation or pool)
    if count > most:
        part = "the validation images" if validation else "one less than the training images"
        raise UsageError(f"--held-out is {count}; allowed: at most {most}, {part}")
    left = pool if validation else pool - count
    if train is not None and train > left:
        raise UsageError(f"--train is {train}; allowed: at most {left}, those not held out")
    parted = images.take(train=train, validation=count)
    return parted.x_train, parted.y_train, (parted.x_validation, parted.y_validation)


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

    Finished runs are not repeated; a killed one goes on after its last epoch.
    Start the command again beside itself to use more cores.
    Each comparison gets NAME.json, .md, .tex and, with matplotlib, .png.

    [bold]Example plan:[/bold]

    {name: mine, data: digits, model: digits-cnn, eps: 0.1, epochs: 30,
     seeds: [0, 1], methods: [{name: AT, kind: pgd}, {name: LFR, kind: lfr}]}

    [bold]Example:[/bold]  art-lfr compare plan.yaml --output results
    """
    options.check_file("PLAN", plan)
    from art_lfr.comparison.plan import RUNS, read_plan
    from art_lfr.storage.files import as_path, check_output, held, make_directory

    check_integer("--threads", threads, low=1)
    chosen = [comparison for comparison in read_plan(plan) if names in comparison.name]
    if not chosen:
        raise UsageError(f"--names is {names!r}; allowed: a part of a name in {str(plan)!r}")
    if not any(only in str(method["name"]) for each in chosen for method in each.methods):
        raise UsageError(f"--only is {only!r}; allowed: a part of a method's name in {str(plan)!r}")
    for name, folder in (("--known", known), ("--data-dir", data_dir)):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{name} is {str(folder)!r}; allowed: a folder")
    output, data_dir = as_path("--output", output), as_path("--data-dir", data_dir)
    shared = output / RUNS
    make_directory(shared, "--output")
    for comparison in chosen:  # before hours of training
        for ending in (".json", ".md", ".tex", ".png"):
            check_output(output / f"{comparison.name}{ending}", "--output")
    progress.loading("torch and ART")
    import torch

    from art_lfr.cli import inputs
    from art_lfr.comparison.results import Results, table, write_report
    from art_lfr.comparison.runner import run_all, take_known

    def tell(line: str) -> None:
        typer.echo(textwrap.fill(line, WIDTH, subsequent_indent="    "), err=True)

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
                    tell=tell,
                )
            with held(shared / "lock", wait=True):
                results = Results.read(comparison, output)
                written = write_report(results, output) if results.runs else []
            if not results.runs:
                typer.echo(f"{comparison.name}: no finished run", err=True)
            elif as_json:
                printed[comparison.name] = table(results).to_dict(orient="records")
            else:
                typer.echo(str(results))
            if written:
                typer.echo(f"Files: {', '.join(map(str, written))}", err=as_json)
    finally:
        torch.set_num_threads(threads_before)
    if as_json:
        inputs.show_json(printed)
