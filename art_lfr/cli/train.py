"""The commands that train: demo, train, tune and compare."""

from __future__ import annotations

import shlex
import sys
import textwrap
import time
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
    check_seed,
    check_share,
    part_for,
)
from art_lfr.core.keywords import LFRKeywords, TrainerKeywords, TrainingKeywords
from art_lfr.core.names import (
    GRADIENT_NORMS,
    PENALTIES,
    UNWEIGHTED,
    check_weight,
    find_name,
    parse_norm,
)
from art_lfr.core.settings import ESTIMATORS, LFRSettings
from art_lfr.core.tables import WIDTH
from art_lfr.data.recipes import RECIPES, Recipe, RecipeKeywords
from art_lfr.errors import TrainingError, UsageError
from art_lfr.training.options import TrainingOptions, check_fit_arguments

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

    from art_lfr.core.arguments import Array
    from art_lfr.data import ImageData
    from art_lfr.tuning import Trial


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("art-lfr-demo"),
    seed: options.Seed = 0,
    epochs: Annotated[int, typer.Option(help="Epochs of each training.")] = RECIPES[
        "digits"
    ].epochs,
) -> None:
    """Train three classifiers on digits, attack them, write a report.

    One without a defence, one by adversarial training, one with LFR; scikit-learn's digits at eps
    0.1, two minutes on one core.
    Prints the accuracy clean, under PGD-40, APGD-T and Square, and in the worst case.
    The folder gets report.md, results.json, figures and the networks (.safetensors).

    [bold]Example:[/bold]  art-lfr demo --output my-report
    """
    check_integer("--epochs", epochs, low=1)
    check_seed("--seed", seed)
    progress.loading("torch, ART and digits")
    from art_lfr.demo.run import run_demo

    run_demo(output, seed=seed, epochs=epochs)


@options.with_options_of(
    {
        LFRKeywords: options.OBJECTIVE,
        RecipeKeywords: options.TRAINING,
        TrainingKeywords: options.TRAINING,
    }
)
def train(
    data: options.Data = None,
    train: Annotated[
        int | None,
        typer.Option(
            help="Number of training images, the first ones; default: all.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            parser=options.read_share,
            metavar="NUMBER",
            help="Validation images: a number, or a share of the training images such as 0.1. The "
            "first of the data's own; where it has none, its last training images, which are then "
            "not trained on. Default: all of its own.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    model: options.Model = None,
    weights: options.Weights = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    penalty: options.Penalty = "lfr",
    max_iter: options.MaxIter = None,
    eps_step: Annotated[
        float | None,
        typer.Option(
            parser=options.or_none(options.read_number),
            metavar="NUMBER",
            help="Length of an ascent step; default: 2 eps / max-iter, and at most 0.4 eps.",
            rich_help_panel=options.OBJECTIVE,
        ),
    ] = None,
    device: options.Device = None,
    seed: options.TrainSeed = 0,
    checkpoint_dir: Annotated[
        Path | None,
        typer.Option(
            help="Keep a checkpoint here after each epoch.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --checkpoint-dir.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    output: Annotated[
        Path,
        typer.Option(
            help="File for the trained weights: .safetensors, which says what it is; or .pt, a "
            "plain state dict.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = Path("lfr-weights.safetensors"),
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace the file of --output where it is there; so does --resume.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    history: Annotated[
        Path | None,
        typer.Option(
            help="Write a row for each epoch to this .csv or .json file, also where training "
            "fails.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            help="Print nothing but errors and where the weights are (and the JSON of --json).",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    as_json: options.Json = False,
    **settings: Any,
) -> None:
    """Train a network with LFR and write its weights.

    What is not given is that of --data in the table of docs/defaults.md. The learning rate is
    one-cycle. Validation images, where there are any, are measured after each epoch. "none"
    switches an option off.
    The exit status is 1 where nothing is learnt: one class for every image.

    [bold]Examples:[/bold]

    art-lfr train --data digits --output robust.safetensors

    art-lfr train --data cifar10 --validation 0.1 --best-metric validation_robust_accuracy

    art-lfr train --model my_nets:make --data my.npz --eps 8/255 --epochs 50

    art-lfr train --checkpoint-dir run1 --resume

    accelerate launch --multi_gpu --num_processes 2 -m art_lfr train
    """
    options.check_output(output, (".safetensors", ".pt", ".pth"))
    options.check_new(output, force or resume)
    options.check_output(history, options.TABLES, "--history")
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
    check_integer("--train", train, low=1, optional=True)
    penalty = find_name("--penalty", penalty, PENALTIES)
    of_trainer = {"eps_step": eps_step, **part_for(settings, TrainerKeywords)}
    keywords = {
        **options.without_missing(of_trainer),
        "penalty": penalty,
        "seed": seed,
        "verbose": not quiet,
    }
    told = _checked(recipe, keywords, checkpoint_dir, resume)

    # What takes seconds to import, once no mistake can be seen any more without it.
    if not quiet:
        progress.loading(f"torch, ART and {recipe.data}")
    import torch

    from art_lfr.art.by_recipe import fit, make_classifier, make_trainer
    from art_lfr.cli import inputs
    from art_lfr.core.processes import Processes
    from art_lfr.models.files import check_savable
    from art_lfr.storage.files import as_path, make_directory, write_atomically
    from art_lfr.storage.info import ENDING

    processes = Processes()  # before the classifier: it has the GPU of this process
    images = inputs.load_data(recipe.data, test=0)
    if isinstance(validation, float):
        validation = max(1, round(validation * len(images.y_train)))
    images = images.take(train=train, validation=validation)
    network = inputs.load_model(recipe.model, weights, seed, inputs.outputs_for(images))
    classes = inputs.count_classes(network, images.x_train, images.y_train)
    classifier = make_classifier(network, images, recipe, classes, device)
    if output.suffix == ENDING:
        check_savable(classifier.model, recipe.model, classifier.nb_classes)
    trainer = make_trainer(classifier, recipe, **keywords)
    if checkpoint_dir is not None and processes.size == 1:
        make_directory(as_path("--checkpoint-dir", checkpoint_dir), "--checkpoint-dir")
    if processes.main and not quiet:
        inputs.tell(*chosen.lines, told)
    there = [path for path in (output, history) if path is not None and path.exists()]
    began = time.perf_counter()

    def keep(_: object = None) -> None:
        if history is not None and trainer.history and processes.main:
            import pandas

            forms = inputs.table_forms(pandas.DataFrame(trainer.history))
            write_atomically(history, forms[history.suffix]())

    try:
        fit(
            trainer,
            images,
            recipe,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
            callback=keep,
        )
    except UsageError:
        if resume and checkpoint_dir is not None:
            _check_epochs(checkpoint_dir, recipe, len(images.x_train))
        raise
    finally:
        keep()
    if not processes.main:
        return
    if output.suffix == ENDING:
        named = recipe.data if recipe.data in RECIPES else Path(recipe.data).name
        trainer.save(output, model=recipe.model, data=named)
    else:
        state = {name: value.cpu() for name, value in classifier.model.state_dict().items()}
        write_atomically(output, lambda file: torch.save(state, file))
    if as_json:
        inputs.show_json(trainer.history)
    collapsed = _is_constant(classifier, images, recipe.batch_size)
    lines = [f"Weights: {output}{' (replaced)' if output in there else ''}"]
    if not quiet:
        lines.insert(0, f"Training took {time.perf_counter() - began:.1f} s")
        if history is not None:
            lines.append(inputs.written(history, history in there))
        if not collapsed:
            lines.append(f"To judge it:\n\n{_evaluation_of(output, recipe)}")
    for line in lines:
        typer.echo(line, err=as_json)
    if collapsed:
        raise TrainingError("not trained: one class for every image")


# Training images that are shown to a trained network.
SHOWN = 1000


def _is_constant(classifier: PyTorchClassifier, images: ImageData, batch_size: int) -> bool:
    """Whether the network names one class for training images of several classes."""
    import torch

    from art_lfr.training.epoch import collapse

    some = slice(None, None, max(1, len(images.y_train) // SHOWN))
    labels = classifier.predict(images.x_train[some], batch_size=batch_size).argmax(axis=1)
    pair = torch.from_numpy(labels), torch.from_numpy(images.y_train[some])
    return collapse([pair], "training") is not None


def _evaluation_of(weights: Path, recipe: Recipe) -> str:
    """The command that judges these weights; what they say themselves is left out."""
    from art_lfr.storage.info import ENDING

    settings: dict[str, object] = {"weights": weights}
    if weights.suffix != ENDING or recipe.data not in RECIPES:
        settings["data"] = recipe.data
    if weights.suffix != ENDING:
        settings |= {"model": recipe.model, "eps": f"{recipe.eps:.8g}", "norm": recipe.norm}
    return _command("evaluate", settings)


def _check_epochs(checkpoint_dir: Path, recipe: Recipe, images: int) -> None:
    """Raise UsageError where the run to go on with is one of another number of epochs.

    Its learning rate, and what else follows from their number, differ with them.
    """
    from art_lfr.storage.tensor_files import LAST, load_run

    path = checkpoint_dir.expanduser() / LAST
    saved = load_run(path) if path.is_file() else {}
    batches = -(-images // recipe.batch_size)
    # `one_cycle` has a step more than there are batches.
    epochs, rest = divmod((saved.get("scheduler") or {}).get("total_steps", 1) - 1, batches)
    if epochs != recipe.epochs and epochs > 0 and rest == 0:
        raise UsageError(
            f"--epochs is {recipe.epochs}, but the run in --checkpoint-dir has {epochs}; allowed: "
            f"--epochs {epochs}"
        )


def _checked(
    recipe: Recipe, keywords: dict[str, Any], checkpoint_dir: Path | None, resume: bool
) -> str:
    """Check what the trainer will, without torch; one line that says what is trained with."""
    check_number("--eps-step", keywords.get("eps_step"), low_allowed=False, optional=True)
    metrics = keywords.get("best_metric")
    if metrics is not None and "," in metrics:
        keywords["best_metric"] = tuple(options.names_in(metrics))
    penalty = keywords["penalty"]
    chosen = {**recipe.objective(penalty), **keywords}
    check_weight(
        penalty,
        chosen.get("lam"),
        has_default=penalty in GRADIENT_NORMS,
        weighted=penalty not in UNWEIGHTED,
    )
    lfr = LFRSettings(
        eps=recipe.eps,
        norm=recipe.norm,
        steps=recipe.max_iter,
        step_size=keywords.get("eps_step"),
        **part_for(chosen, LFRKeywords),
    )
    training = TrainingOptions(seed=keywords["seed"], **part_for(chosen, TrainingKeywords))
    if resume and checkpoint_dir is None:
        raise UsageError("--resume needs --checkpoint-dir; allowed: the folder of the run")
    check_fit_arguments(recipe.epochs, checkpoint_dir, resume)
    origin = "docs/defaults.md" if recipe.data in RECIPES else "the defaults"
    others = f", weight decay {recipe.weight_decay:g}" if recipe.weight_decay else ""
    others += f", {recipe.augmentation}" if recipe.augmentation != "none" else ""
    return (
        f"{recipe.data}: {recipe.model}, eps {lfr.eps:.4g}, norm {lfr.norm:g}, {lfr.steps} ascent "
        f"steps, lam {lfr.lam:.4g}, radius {lfr.radius:.4g}; epochs {recipe.epochs}, warm-up "
        f"{training.warmup_epochs:.2g}, batches of {recipe.batch_size}, {recipe.optimizer}, lr "
        f"{recipe.lr:g}{others} (what was not given: {origin})"
    )


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

    art-lfr tune --model small-cnn --data mnist --eps 0.3 --minutes 30
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
    line = f"To train with it, on all training images:\n\n{_command('train', written)}"
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
    options.check_file("PLAN", plan)
    from art_lfr.comparison.plan import RUNS, read_plan
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
