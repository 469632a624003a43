"""The demonstration: a standard and an LFR classifier on scikit-learn's digits, attacked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from art.estimators.classification import PyTorchClassifier
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.core.arguments import check_integer
from art_lfr.data import ImageData, digits
from art_lfr.demo.report import comparison, write_report
from art_lfr.demo.training import (
    BATCH_SIZE,
    EPOCHS,
    LEARNING_RATE,
    SETTINGS,
    lfr_settings,
    make_classifier,
    one_thread,
    train_lfr,
    train_standard,
    warmup_epochs,
)
from art_lfr.evaluation.results import Evaluation
from art_lfr.evaluation.run import evaluate
from art_lfr.plots import gradient_maps, gradients_figure, loss_surface, surface_figure
from art_lfr.plots.style import has_matplotlib
from art_lfr.plots.training import training_curves
from art_lfr.training.processes import Processes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SURFACES = 3
GRADIENT_MAPS = 4


@dataclass(frozen=True)
class Demo:
    """What a demonstration found, by the models' names "standard" and "LFR"."""

    evaluations: dict[str, Evaluation]
    histories: dict[str, list[dict[str, float]]]
    report: Path
    seconds: float


def run_demo(
    output: str | Path = "art-lfr-demo",
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    console: Console | None = None,
) -> Demo:
    """Train and attack a standard and an LFR classifier on digits; write a report to `output`.

    eps is 0.1 for pixels in [0, 1], norm inf. Both classifiers have the same network, first
    weights, optimizer and epochs; the 450 test images are looked at once, at the end. Prints
    progress and the table on `console`. The global random state is left as found. Without
    matplotlib the report has no figures.

    Raises ValueError or TypeError for bad arguments, OSError where `output` cannot be written.
    """
    check_integer("seed", seed, low=0)
    check_integer("epochs", epochs, low=1)
    Processes().check_alone("art-lfr demo")
    # First, as this should not fail after minutes of training.
    Path(output).mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    console = console or Console()
    data = digits()
    console.print(
        f"scikit-learn's digits: {len(data.x_train)} training images, {len(data.x_validation)} for "
        f"validation, {len(data.x_test)} for test; eps {SETTINGS['eps']}, norm inf"
    )
    classifiers = {name: make_classifier(seed) for name in ("standard", "LFR")}
    histories: dict[str, list[dict[str, float]]] = {}
    evaluations: dict[str, Evaluation] = {}
    with one_thread(), _progress(console) as progress:
        tick = _ticker(progress, "training: standard", epochs)
        histories["standard"] = train_standard(classifiers["standard"], data, epochs, seed, tick)
        tick = _ticker(progress, "training: LFR", epochs)
        histories["LFR"] = train_lfr(classifiers["LFR"], data, epochs, seed, tick)
        for name, classifier in classifiers.items():
            tick = _ticker(progress, f"attacking: {name}", 6)
            evaluations[name] = evaluate(
                classifier,
                data.x_test,
                data.y_test,
                eps=SETTINGS["eps"],
                batch_size=len(data.x_test),
                seed=seed,
                callback=tick,
            )
            tick()
    console.print(_table(evaluations))
    drawn = has_matplotlib()
    if not drawn:
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
            **asdict(lfr_settings()),
            "norm": "inf",
            "epochs": epochs,
            "warmup_epochs": warmup_epochs(epochs),
            "batch_size": BATCH_SIZE,
            "peak_learning_rate": LEARNING_RATE,
            "seed": seed,
        },
    )
    seconds = time.perf_counter() - began
    console.print(f"Report: {report} ({seconds:.0f} s in all)", soft_wrap=True)
    return Demo(evaluations, histories, report, seconds)


def _figures(
    classifiers: Mapping[str, PyTorchClassifier],
    histories: dict[str, list[dict[str, float]]],
    data: ImageData,
) -> dict[str, tuple[str, Figure]]:
    """The report's figures and their captions, by the names of their files."""
    modules = {name: ClassifierAdapter(c).module for name, c in classifiers.items()}
    shown = _first_of_each_class(data.y_test)
    x, y = data.x_test[shown], data.y_test[shown]
    surfaces = {
        name: loss_surface(module, x[:SURFACES], y[:SURFACES], eps=SETTINGS["eps"])
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


def _first_of_each_class(y: Any) -> Sequence[int]:
    found: Sequence[int] = np.unique(y, return_index=True)[1].tolist()
    return found


def _summary(evaluations: dict[str, Evaluation]) -> str:
    standard, lfr = evaluations["standard"], evaluations["LFR"]
    return (
        "Two networks with the same first weights were trained on scikit-learn's 8x8 digits: one "
        "with ART's `fit`, one with `AdversarialTrainerLFRPyTorch`. Under the worst of the attacks "
        f"below, with pixels changed by at most {lfr.eps:g}, the standard one classifies "
        f"{100 * standard.worst_case.accuracy:.1f} % of the test images correctly, the LFR one "
        f"{100 * lfr.worst_case.accuracy:.1f} %.\n\n"
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


def _ticker(progress: Progress, name: str, total: int) -> Callable[..., None]:
    """A callback that moves a new bar on by one, whatever it is given."""
    task = progress.add_task(name, total=total)
    return lambda *_: progress.advance(task)


def _table(evaluations: dict[str, Evaluation]) -> Table:
    header, cells = comparison(evaluations)
    table = Table()
    for index, title in enumerate(header):
        table.add_column(title, justify="left" if index == 0 else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row, style="bold" if row[0] == "worst case" else None)
    return table
