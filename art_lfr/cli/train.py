"""The commands that train one network, or the three of the demo."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_lfr.cli import known, options
from art_lfr.core import progress
from art_lfr.core.arguments import (
    check_integer,
    check_number,
    check_seed,
    part_for,
)
from art_lfr.core.keywords import LFRKeywords, TrainerKeywords, TrainingKeywords
from art_lfr.core.names import (
    GRADIENT_NORMS,
    PENALTIES,
    UNWEIGHTED,
    check_used,
    check_weight,
    find_name,
)
from art_lfr.core.settings import LFRSettings
from art_lfr.data.recipes import RECIPES, Recipe, RecipeKeywords
from art_lfr.errors import TrainingError, UsageError
from art_lfr.training.options import TrainingOptions, check_fit_arguments

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier

    from art_lfr.data import ImageData


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("art-lfr-demo"),
    seed: options.Seed = 0,
    epochs: Annotated[int, typer.Option(help="Epochs of each training.")] = RECIPES[
        "digits"
    ].epochs,
) -> None:
    """Train three classifiers on digits, attack them, write a report.

    One without a defence, one by adversarial training, one with LFR.
    scikit-learn's digits at eps 0.1; two minutes on one core.
    Prints the accuracy clean, under three attacks, and in the worst case.
    The folder gets a report, results.json, figures and the networks.

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

    What is not given is that of --data in the table of docs/defaults.md.
    The learning rate is one-cycle; "none" switches an option off.
    Validation images, where there are any, are measured after each epoch.
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
    check_used(penalty, {**keywords, "max_iter": max_iter})
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
    if len(images.x_validation) == 0 and "validation_" in str(keywords.get("best_metric")):
        raise UsageError(
            f"--best-metric is {keywords['best_metric']!r} without validation images; allowed: "
            "--validation, or a metric of the training images"
        )
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
    except UsageError as error:
        if resume and checkpoint_dir is not None:
            _check_lengths(checkpoint_dir, recipe, len(images.x_train))
            if re.match(r"(optimizer|scheduler)\b", str(error)):
                raise UsageError(
                    "--resume would go on with another --lr, --optimizer, --weight-decay or "
                    f"--batch-size; allowed: those of the run in --checkpoint-dir ({error})"
                ) from error
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
    from art_lfr.data.files import parts_of
    from art_lfr.data.image_data import PARTS
    from art_lfr.storage.info import ENDING

    settings: dict[str, object] = {"weights": weights}
    if weights.suffix != ENDING or recipe.data not in RECIPES:
        settings["data"] = recipe.data
    parts = parts_of(recipe.data) if recipe.data.endswith(".npz") else PARTS
    if "test" not in parts:
        settings["split"] = parts[-1]
    if weights.suffix != ENDING:
        settings |= {"model": recipe.model, "eps": f"{recipe.eps:.8g}", "norm": recipe.norm}
    return options.command_line("evaluate", settings)


def _check_lengths(checkpoint_dir: Path, recipe: Recipe, images: int) -> None:
    """Raise UsageError where the run to go on with has other numbers of images or epochs.

    Its learning rate, and what else follows from them, differ with them.
    """
    from art_lfr.storage.tensor_files import LAST, load_run

    path = checkpoint_dir.expanduser() / LAST
    saved = load_run(path) if path.is_file() else {}
    trained = saved.get("identity", {}).get("x", {}).get("shape", [images])[0]
    if trained != images:
        raise UsageError(
            f"--train leaves {images} training images, but the run in --checkpoint-dir has "
            f"{trained}; allowed: as many"
        )
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
    # What the penalty has no use for is not said of it.
    weight = "" if penalty in UNWEIGHTED else f", lam {lfr.lam:.4g}"
    weight += f", radius {lfr.radius:.4g}" if penalty in GRADIENT_NORMS else f", {penalty}"
    return (
        f"{recipe.data}: {recipe.model}, eps {lfr.eps:.4g}, norm {lfr.norm:g}, {lfr.steps} ascent "
        f"steps{weight}; epochs {recipe.epochs}, warm-up "
        f"{training.warmup_epochs:.2g}, batches of {recipe.batch_size}, {recipe.optimizer}, lr "
        f"{recipe.lr:g}{others} (what was not given: {origin})"
    )
