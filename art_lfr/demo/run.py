"""The demonstration: a standard and an LFR classifier on scikit-learn's digits, attacked."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
from art_lfr.core.arguments import check_integer, check_seed
from art_lfr.core.randomness import preserved_random_state, seed_global_generators
from art_lfr.core.settings import LFRSettings
from art_lfr.data import ImageData, digits
from art_lfr.errors import UsageError
from art_lfr.evaluation.results import Evaluation
from art_lfr.evaluation.run import evaluate
from art_lfr.models import digits_cnn, save_network
from art_lfr.plots import gradient_maps, gradients_figure, loss_surface, surface_figure
from art_lfr.plots.drawing import has_matplotlib, training_curves
from art_lfr.storage.files import as_path, check_output, make_directory, write_atomically
from art_lfr.storage.info import ENDING
from art_lfr.training.monitoring import Monitor
from art_lfr.training.processes import Processes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# lam: the better one at this eps on validation images (docs/defaults.md); few steps: quick.
SETTINGS: dict[str, Any] = {"eps": 0.1, "lam": 0.1, "max_iter": 5}
EPOCHS = 30
WARMUP_EPOCHS = 4.0
BATCH_SIZE = 64
LEARNING_RATE = 0.1
History: TypeAlias = list[dict[str, float]]
Tick: TypeAlias = Callable[..., None]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one core: the network is too small for more, and the sums do not depend on it.

    Two threads on a busy machine wait for each other, and take several times as long as one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_classifier(seed: int) -> PyTorchClassifier:
    """The network that both start from, in ART's wrapper with an optimizer of its own."""
    model = digits_cnn(seed)
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def _one_cycle(classifier: PyTorchClassifier, steps: int) -> OneCycleLR:
    return OneCycleLR(classifier.optimizer, LEARNING_RATE, total_steps=steps + 1)


def train_standard(
    classifier: PyTorchClassifier, data: ImageData, epochs: int, seed: int, tick: Tick, path: Path
) -> History:
    """ART's own `fit`, epoch by epoch, with the same measurements as the LFR trainer's.

    The network is saved to `path`.
    """
    adapter = ClassifierAdapter(classifier)
    x, y = adapter.tensors(data.x_validation, data.y_validation)
    monitor = Monitor("validation", x, y, len(x), len(x), seed)
    settings = lfr_settings()
    scheduler = _one_cycle(classifier, epochs)
    history: History = []
    with preserved_random_state(torch.device("cpu")):
        # ART shuffles with the global generators.
        seed_global_generators(seed)
        for epoch in range(epochs):
            settings_of_fit = {"nb_epochs": 1, "scheduler": scheduler, "verbose": False}
            classifier.fit(data.x_train, data.y_train, batch_size=BATCH_SIZE, **settings_of_fit)
            box = adapter.box(x)
            metrics, _ = monitor.measure(adapter.module, adapter.criterion, box, settings)
            history.append({"epoch": epoch + 1, **metrics})
            tick()
    how = {"epochs": epochs, "batch_size": BATCH_SIZE, "optimizer": "SGD", "seed": seed}
    info = adapter.info(data=data.name, settings=how, metrics=history[-1])
    save_network(path, adapter.network, info)
    return history


def train_lfr(
    classifier: PyTorchClassifier, data: ImageData, epochs: int, seed: int, tick: Tick, path: Path
) -> History:
    """This package's trainer, with a learning rate that changes after each batch.

    The network is saved to `path`.
    """
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, **SETTINGS, warmup_epochs=warmup_epochs(epochs), seed=seed, verbose=False
    )
    steps = epochs * -(-len(data.x_train) // BATCH_SIZE)
    trainer.fit(
        data.x_train,
        data.y_train,
        validation_data=(data.x_validation, data.y_validation),
        batch_size=BATCH_SIZE,
        nb_epochs=epochs,
        scheduler=_one_cycle(classifier, steps),
        scheduler_interval="batch",
        callback=tick,
    )
    trainer.save(path, data=data.name)
    return trainer.history


def lfr_settings() -> LFRSettings:
    """The settings under which both classifiers are measured after each epoch."""
    return LFRSettings(eps=SETTINGS["eps"], lam=SETTINGS["lam"], steps=SETTINGS["max_iter"])


def warmup_epochs(epochs: int) -> float:
    """The epochs over which eps and lam rise: fewer where the training is short."""
    return min(WARMUP_EPOCHS, epochs / 3)


DOTS_PER_INCH = 120


def comparison(evaluations: Mapping[str, Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of one table: a row for each attack, a column for each model.

    Accuracies in per cent with their 95 % intervals; the last row is the mean local flatness.
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
            interval = f"({100 * row.low:.1f} to {100 * row.high:.1f})"
            line.append(f"{100 * row.accuracy:.1f} % {interval}")
    means = [f"{e.flatness_summary['mean']:.3g}" for e in evaluations.values()]
    return ["", *evaluations], [*cells, ["mean flatness", *means]]


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
    from tabulate import tabulate

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "results.json").exists():
        (folder / "results.json").unlink()
    header, cells = comparison(evaluations)
    first = next(iter(evaluations.values()))
    parts = [
        f"# {title}",
        summary,
        "## Accuracy and flatness",
        tabulate(cells, header, "github", disable_numparse=True),
        f"{first.rows[0].images} test images, eps {first.eps:g}, norm {first.norm}; 95 % Wilson "
        "intervals in brackets. The worst case counts an image only where it is classified "
        "correctly without an attack and under each. Flatness is the largest dual norm of the "
        "loss gradient found in the ball, in nats per unit of x; small is flat.",
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
    write_atomically(folder / "results.json", json.dumps(results, indent=1) + "\n")
    return folder / "report.md"


SURFACES = 3
GRADIENT_MAPS = 4


def run_demo(
    output: str | Path = "art-lfr-demo",
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    console: Console | None = None,
) -> dict[str, Evaluation]:
    """Train and attack a standard and an LFR classifier on digits; write a report to `output`.

    eps is 0.1 for pixels in [0, 1], norm inf. Both classifiers have the same network, first
    weights, optimizer and epochs; the 450 test images are looked at once, at the end. Prints
    progress and the table on `console`. The global random state is left as found. Without
    matplotlib the report has no figures. The trained networks are kept as standard.safetensors and
    lfr.safetensors. Returns the evaluations of "standard" and "LFR".

    Raises ValueError or TypeError for bad arguments, OSError where `output` cannot be written.
    """
    check_seed("seed", seed)
    check_integer("epochs", epochs, low=1)
    Processes().check_alone("art-lfr demo")
    # First, as this should not fail after minutes of training.
    output = as_path("output", output)
    make_directory(output, "output")
    files = {
        name: check_output(output / f"{name.lower()}{ENDING}", "output")
        for name in ("standard", "LFR")
    }
    began = time.perf_counter()
    console = console or Console()
    data = digits()
    console.print(
        f"scikit-learn's digits: {len(data.x_train)} training images, {len(data.x_validation)} for "
        f"validation, {len(data.x_test)} for test; eps {SETTINGS['eps']}, norm inf"
    )
    classifiers = {name: make_classifier(seed) for name in files}
    histories: dict[str, History] = {}
    evaluations: dict[str, Evaluation] = {}
    with one_thread(), _progress(console) as progress:
        for name, train in (("standard", train_standard), ("LFR", train_lfr)):
            tick = _ticker(progress, f"training: {name}", epochs)
            histories[name] = train(classifiers[name], data, epochs, seed, tick, files[name])
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
    console.print(
        f"The networks are beside it: art-lfr evaluate --weights {files['LFR']}", soft_wrap=True
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


def _ticker(progress: Progress, name: str, total: int) -> Tick:
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
