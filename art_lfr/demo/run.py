"""The demonstration: a standard and an LFR classifier on scikit-learn's digits, attacked."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.trainer import AdversarialTrainer
from art.estimators.classification import PyTorchClassifier
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from art_lfr.art.by_recipe import fit, make_classifier, make_trainer, one_cycle, one_thread
from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.art.quiet import quiet
from art_lfr.core.arguments import check_integer, check_seed
from art_lfr.core.processes import Processes
from art_lfr.core.randomness import preserved_random_state, seed_global_generators
from art_lfr.core.settings import LFRSettings
from art_lfr.core.tables import Table
from art_lfr.data import RECIPES, ImageData, Recipe, digits
from art_lfr.errors import UsageError
from art_lfr.evaluation.results import Evaluation
from art_lfr.evaluation.run import evaluate
from art_lfr.models import digits_cnn, save_network
from art_lfr.plots import (
    gradient_maps,
    gradients_figure,
    loss_surface,
    surface_figure,
    vulnerability,
    vulnerability_figure,
)
from art_lfr.plots.drawing import has_matplotlib, training_curves
from art_lfr.storage.files import as_path, check_output, make_directory, write_atomically
from art_lfr.storage.info import ENDING
from art_lfr.training.history import History
from art_lfr.training.monitoring import Monitor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


RECIPE = RECIPES["digits"]
Tick: TypeAlias = Callable[..., None]


def train_by_art(
    classifier: PyTorchClassifier,
    trainer: Any,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    tick: Tick,
    path: Path,
) -> History:
    """ART's `fit` of a classifier or one of its trainers, with LFR's measurements after each epoch.

    The network is saved to `path`.
    """
    adapter = ClassifierAdapter(classifier)
    x, y = adapter.tensors(data.x_validation, data.y_validation)
    monitor = Monitor("validation", x, y, len(x), len(x), seed)
    settings = lfr_settings(recipe)
    scheduler = one_cycle(classifier.optimizer, recipe, recipe.epochs)
    history = History()
    with preserved_random_state(torch.device("cpu")), quiet():
        # ART shuffles with the global generators.
        seed_global_generators(seed)
        for epoch in range(recipe.epochs):
            trainer.fit(data.x_train, data.y_train, batch_size=recipe.batch_size, nb_epochs=1)
            scheduler.step()
            box = adapter.box(x)
            metrics, _ = monitor.measure(adapter.module, adapter.criterion, box, settings)
            history.append({"epoch": epoch + 1, **metrics})
            tick()
    how: dict[str, Any] = {"epochs": recipe.epochs, "batch_size": recipe.batch_size, "seed": seed}
    how |= {"optimizer": recipe.optimizer, "trainer": type(trainer).__name__}
    info = adapter.info(data=data.name, settings=how, metrics=history[-1])
    if trainer is not classifier:
        info = replace(info, eps=recipe.eps, norm=recipe.norm)
    save_network(path, adapter.network, info)
    return history


def _adversarial_trainer(classifier: PyTorchClassifier, recipe: Recipe) -> AdversarialTrainer:
    """ART's adversarial training (Madry et al. 2018)."""
    steps = ADVERSARIAL_STEPS
    attack = ProjectedGradientDescent(
        classifier,
        eps=recipe.eps,
        eps_step=2.5 * recipe.eps / steps,
        max_iter=steps,
        num_random_init=1,
        batch_size=recipe.batch_size,
        verbose=False,
    )
    return AdversarialTrainer(classifier, attack, ratio=1.0)


def lfr_settings(recipe: Recipe) -> LFRSettings:
    """The settings under which all classifiers are measured after each epoch."""
    lam = recipe.objective()["lam"]
    return LFRSettings(eps=recipe.eps, lam=lam, steps=recipe.max_iter)


# Its attack starts anew in each epoch.
ADVERSARIAL_STEPS = 5
STANDARD, ADVERSARIAL, LFR = "standard", "adversarial training", "LFR"
DOTS_PER_INCH = 120
# What is written last.
RESULTS = "results.json"


def comparison(evaluations: Mapping[str, Evaluation]) -> Table:
    """A row for each attack, a column for each model; the last row is the mean local flatness.

    Accuracies are in per cent, with their 95 % intervals.
    Raises ValueError where the models were not evaluated with the same attacks.
    """
    first = next(iter(evaluations.values()))
    names = [row.name for row in first.rows]
    for model, evaluation in evaluations.items():
        if [row.name for row in evaluation.rows] != names:
            raise UsageError(f"evaluations[{model!r}] has other attacks than {', '.join(names)}")
    cells = [[name] for name in names]
    for evaluation in evaluations.values():
        for line, row in zip(cells, evaluation.rows, strict=True):
            line.append(f"{100 * row.accuracy:.1f} ({100 * row.low:.1f}-{100 * row.high:.1f})")
    means = [f"{e.flatness_summary['mean']:.3g}" for e in evaluations.values()]
    about = (
        f"Accuracy in per cent of {first.rows[0].images} test images, with 95 % intervals; eps "
        f"{first.eps:g}, norm {first.norm}. Worst case: right under every attack. Mean flatness: "
        "the steepest slope of the loss found in the ball; small is flat."
    )
    return Table(["accuracy %", *evaluations], [*cells, ["mean flatness", *means]], [about])


def write_report(
    folder: str | Path,
    *,
    title: str,
    summary: str,
    evaluations: Mapping[str, Evaluation],
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    figures: Mapping[str, tuple[str, Figure]],
    settings: Mapping[str, Any],
) -> Path:
    """Write report.md, results.json and the figures into `folder`, each file atomically.

    `figures` maps file names without ending to (caption, figure). `settings` are JSON types.
    results.json comes last, so a folder that has it is complete. Other files in the folder are
    left alone. Returns the path of report.md.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).unlink(missing_ok=True)
    parts = [
        f"# {title}",
        summary,
        "## Accuracy and flatness",
        comparison(evaluations).to_markdown(),
    ]
    for name, (caption, figure) in figures.items():
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=DOTS_PER_INCH)
        write_atomically(folder / f"{name}.png", image.getvalue())
        parts += [f"## {caption.partition('.')[0]}", f"![{name}]({name}.png)", caption]
    parts += ["## Settings", "\n".join(f"- {key}: {value}" for key, value in settings.items())]
    results = {
        "settings": dict(settings),
        "evaluations": {name: e.to_dict() for name, e in evaluations.items()},
        "histories": {name: [dict(r) for r in records] for name, records in histories.items()},
    }
    write_atomically(folder / "report.md", "\n\n".join(parts) + "\n")
    write_atomically(folder / RESULTS, json.dumps(results, indent=1) + "\n")
    return folder / "report.md"


SURFACES = 3
GRADIENT_MAPS = 4
DOTS = 150


def run_demo(
    output: str | Path = "art-lfr-demo",
    *,
    seed: int = 0,
    epochs: int = RECIPE.epochs,
    console: Console | None = None,
) -> dict[str, Evaluation]:
    """Train and attack three classifiers on digits; write a report to `output`.

    One is trained without a defence, one by adversarial training, one by LFR. eps is 0.1 for
    pixels in [0, 1], norm inf. All have the same network, first weights, optimizer and epochs; the
    450 test images are looked at once, at the end. Prints progress and the table on `console`. The
    global random state is left as found. Without matplotlib the report has no figures. The trained
    networks are kept beside it. Returns the evaluations, by the names of the trainings.

    Raises ValueError or TypeError for bad arguments, OSError where `output` cannot be written.
    """
    check_seed("seed", seed)
    check_integer("epochs", epochs, low=1)
    Processes().check_alone("art-lfr demo")
    # First, as this should not fail after minutes of training.
    output = as_path("output", output)
    make_directory(output, "output")
    files = {
        name: check_output(output / f"{name.lower().replace(' ', '-')}{ENDING}", "output")
        for name in (STANDARD, ADVERSARIAL, LFR)
    }
    began = time.perf_counter()
    console = console or Console()
    if (output / RESULTS).exists():  # the networks of the report that is there are replaced
        (output / RESULTS).unlink()
        console.print(f"Replacing the report in {output}", markup=False, soft_wrap=True)
    data, recipe = digits(), replace(RECIPE, epochs=epochs)
    console.print(
        f"scikit-learn's digits: {len(data.x_train)} training images, {len(data.x_validation)} for "
        f"validation, {len(data.x_test)} for test; eps {recipe.eps}, norm inf"
    )
    classifiers = {
        name: make_classifier(digits_cnn(seed), data, recipe, classes=10, device="cpu")
        for name in files
    }
    histories: dict[str, History] = {}
    evaluations: dict[str, Evaluation] = {}
    with one_thread(), _progress(console) as progress:
        for name, classifier in classifiers.items():
            tick, path = _ticker(progress, f"training: {name}", epochs), files[name]
            if name == LFR:
                trainer = make_trainer(classifier, recipe, seed=seed, verbose=False)
                fit(trainer, data, recipe, callback=tick)
                trainer.save(path, data=data.name)
                histories[name] = trainer.history
                continue
            art = classifier if name == STANDARD else _adversarial_trainer(classifier, recipe)
            histories[name] = train_by_art(classifier, art, data, recipe, seed, tick, path)
        for name, classifier in classifiers.items():
            tick = _ticker(progress, f"attacking: {name}", 6)
            evaluations[name] = evaluate(
                classifier,
                data.x_test,
                data.y_test,
                eps=recipe.eps,
                batch_size=len(data.x_test),
                seed=seed,
                callback=tick,
            )
            tick()
    console.print(str(comparison(evaluations)), markup=False, highlight=False)
    drawn = has_matplotlib()
    if drawn:
        console.print("Drawing figures ...")
    else:
        missing = 'The report has no figures; for those: pip install "art-lfr[plots]"'
        console.print(missing, markup=False)
    report = write_report(
        output,
        title="Local flatness regularization on digits",
        summary=_summary(evaluations),
        evaluations=evaluations,
        histories=histories,
        figures=_figures(classifiers, histories, data) if drawn else {},
        settings={
            **asdict(lfr_settings(recipe)),
            "norm": "inf",
            "epochs": epochs,
            "warmup_epochs": recipe.objective()["warmup_epochs"],
            "batch_size": recipe.batch_size,
            "peak_learning_rate": recipe.lr,
            "seed": seed,
        },
    )
    seconds = time.perf_counter() - began
    console.print(f"Report: {report} ({seconds:.0f} s in all)", soft_wrap=True)
    console.print(
        f"The networks are beside it: art-lfr evaluate --weights {files[LFR]}", soft_wrap=True
    )
    return evaluations


def _figures(
    classifiers: Mapping[str, PyTorchClassifier], histories: dict[str, History], data: ImageData
) -> dict[str, tuple[str, Figure]]:
    """The report's figures and their captions, by the names of their files."""
    modules = {name: ClassifierAdapter(c).module for name, c in classifiers.items()}
    shown = np.unique(data.y_test, return_index=True)[1]  # the first of each class
    x, y = data.x_test[shown], data.y_test[shown]
    surfaces = {
        name: loss_surface(module, x[:SURFACES], y[:SURFACES], eps=RECIPE.eps)
        for name, module in modules.items()
    }
    points = {
        name: vulnerability(module, data.x_test[:DOTS], data.y_test[:DOTS], eps=RECIPE.eps)
        for name, module in modules.items()
    }
    maps = {
        name: gradient_maps(module, x[:GRADIENT_MAPS], y[:GRADIENT_MAPS])
        for name, module in modules.items()
    }
    return {
        "training_curves": (
            "Training curves. PGD-10 and flatness are measured on the validation images.",
            training_curves(histories),
        ),
        "flatness_and_vulnerability": (
            "Flatness and vulnerability. Each point is a test image: how steep the loss is at most "
            "in its ball, and how far it rises there. The line is the bound, eps times flatness.",
            vulnerability_figure(points),
        ),
        "loss_surface": (
            "Loss surface around test images. The first test image of each of the classes 0 to "
            f"{SURFACES - 1}, along the model's own adversarial direction and a random one.",
            surface_figure(surfaces),
        ),
        "input_gradients": (
            "Input gradients. How each pixel changes the loss of the true class.",
            gradients_figure(maps, shown=GRADIENT_MAPS),
        ),
    }


def _summary(evaluations: dict[str, Evaluation]) -> str:
    worst = {name: f"{100 * e.worst_case.accuracy:.1f} %" for name, e in evaluations.items()}
    return (
        "Three networks with the same first weights were trained on scikit-learn's 8x8 digits: one "
        "with ART's `fit`, one with its adversarial training, one with "
        "`AdversarialTrainerLFRPyTorch`. With pixels changed by at most "
        f"{evaluations[LFR].eps:g}, {worst[STANDARD]}, {worst[ADVERSARIAL]} and {worst[LFR]} of "
        "the test images are right under each of the attacks below.\n\n"
        "An illustration, not a benchmark: one seed, a small data set of small images."
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:20}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=console,
    )


def _ticker(progress: Progress, name: str, total: int) -> Tick:
    """A callback that moves a new bar on by one, whatever it is given."""
    task = progress.add_task(name, total=total)
    return lambda *_: progress.advance(task)
