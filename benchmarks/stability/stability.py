"""Which default trains where a stranger would try it? The study behind `held_epochs` and the clip.

    python benchmarks/stability/stability.py run --data DIRECTORY
    python benchmarks/stability/stability.py table

DIRECTORY has mnist.npz and cifar10_jpeg.npz. Each cell of stability.yaml is trained by each method
at a constant rate and judged on reserved training images; a run that has its line in the results is
not repeated. `--part 0/2` and `--part 1/2` share the runs between two processes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import typer
import yaml
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.trainer import AdversarialTrainer, AdversarialTrainerTRADESPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, __version__
from art_lfr.attacks.target import LogitsModule
from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.pgd import classify, projected_gradient_descent
from art_lfr.core.settings import LFRSettings
from art_lfr.data import digits, load
from art_lfr.errors import TrainingError
from art_lfr.models import BUILT_IN
from art_lfr.training.options import TrainingOptions

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.jsonl"
OPTIMIZERS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr),
}
# A network is called constant where one class has more than this share of its predictions, and the
# labels do not.
CONSTANT = 0.9
# So many points behind the best method of the cell is far.
FAR = 10
app = typer.Typer(add_completion=False, help=__doc__)


def planned() -> Iterator[dict[str, Any]]:
    """The settings of every run: cell by cell, in each of them method by method."""
    plan = yaml.safe_load((FOLDER / "stability.yaml").read_text())
    for cells in plan["cells"]:
        for seed in cells["seeds"]:
            for eps in cells["eps"]:
                for optimizer, lr in cells["optimizers"]:
                    cell = {"eps": eps, "optimizer": optimizer, "lr": lr, "seed": seed}
                    for method, settings in plan["methods"].items():
                        names = {"cells": cells["name"], "method": method}
                        yield {**names, **plan["common"], **cells["common"], **cell, **settings}


def key_of(run: dict[str, Any]) -> str:
    """What identifies a run: all its settings."""
    return json.dumps(run, sort_keys=True)


def images(run: dict[str, Any], directory: Path) -> tuple[Any, ...]:
    """x and y to train on, and x and y to judge on: the last training images."""
    count = run["reserved"]
    if run["data"] == "breast_cancer":
        from sklearn.datasets import load_breast_cancer

        x, y = load_breast_cancer(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(x))
        x = ((x - x.min(axis=0)) / np.ptp(x, axis=0)).astype(np.float32)[order]
        y = y[order].astype(np.int64)
    elif run["data"] == "digits":
        data = digits()
        x = np.concatenate([data.x_train, data.x_validation])
        y = np.concatenate([data.y_train, data.y_validation])
    else:
        data = load(directory / run["data"], train=run["train"], validation=count, test=0)
        return data.x_train, data.y_train, data.x_validation, data.y_validation
    return x[:-count], y[:-count], x[-count:], y[-count:]


def network(run: dict[str, Any]) -> nn.Module:
    """The network with the first weights of the seed."""
    if run["model"] != "mlp":
        return BUILT_IN[run["model"]](run["seed"])
    torch.manual_seed(run["seed"])
    return nn.Sequential(
        nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )


class OnlyEps(AdversarialTrainerLFRPyTorch):
    """The warm-up raises eps alone; lam is full from the first batch."""

    def _assemble(self) -> None:
        super()._assemble()
        full = self._loop.settings

        class Settings(LFRSettings):
            def warmed(self, epochs: float, warmup_epochs: float) -> LFRSettings:
                warmed = LFRSettings.warmed(self, epochs, warmup_epochs)
                object.__setattr__(warmed, "lam", full.lam)
                return warmed

        settings = object.__new__(Settings)
        for name, value in vars(full).items():
            object.__setattr__(settings, name, value)
        self._loop.settings = settings


class LetIn(TrainingOptions):
    """The lower end is let in over `times` as many epochs as it is held."""

    times = 1.0

    def let_in(self, epochs: float) -> float:
        held = self.warmup_epochs if self.held_epochs is None else self.held_epochs
        return min(1.0, max(0.0, (epochs - held) / (self.times * held))) if held else 1.0


def set_let_in(trainer: AdversarialTrainerLFRPyTorch, times: float) -> None:
    """Give the trainer's loop these options in place of its own."""
    options = object.__new__(LetIn)
    for name, value in {**vars(trainer._loop.options), "times": times}.items():
        object.__setattr__(options, name, value)
    trainer._loop.options = options


def clip_by_history(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Clip each gradient at `factor` times the median norm of the last 100, once there are 10."""
    norms: list[float] = []

    def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = factor * median(norms) if len(norms) >= 10 else math.inf
        norms.append(float(nn.utils.clip_grad_norm_(parameters, limit)))
        del norms[:-100]

    optimizer.register_step_pre_hook(clip)


def warmup_epochs(run: dict[str, Any], samples: int) -> float:
    """The epochs of the warm-up; one in steps takes a third of the training at most."""
    if "warmup_steps" not in run:
        return float(run["warmup_epochs"])
    return min(run["warmup_steps"] / math.ceil(samples / run["batch_size"]), run["epochs"] / 3)


def twin(run: dict[str, Any], samples: int) -> str:
    """The same for runs that train alike under two names."""
    warmup = warmup_epochs(run, samples)
    same = {k: v for k, v in run.items() if k not in ("method", "warmup_steps")}
    return key_of({**same, "warmup_epochs": warmup})


def train(run: dict[str, Any], x: Any, y: Any) -> nn.Module:
    """The trained network."""
    classes = int(y.max()) + 1
    model = LogitsModule(network(run), torch.float32)  # as one layer, for ART's TRADES
    optimizer = OPTIMIZERS[run["optimizer"]](model.parameters(), run["lr"])
    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        x.shape[1:],
        classes,
        optimizer=optimizer,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    torch.manual_seed(run["seed"])
    np.random.seed(run["seed"])
    size, epochs, steps = run["batch_size"], run["epochs"], run["steps"]
    if "kind" in run:
        attack = ProjectedGradientDescent(
            classifier,
            eps=run["eps"],
            eps_step=2.5 * run["eps"] / steps,
            max_iter=steps,
            num_random_init=1,
            batch_size=size,
            verbose=False,
        )
        if run["kind"] == "pgd":
            art = AdversarialTrainer(classifier, attack, ratio=1.0)
        else:
            art = AdversarialTrainerTRADESPyTorch(classifier, attack, beta=run["beta"])
        art.fit(x, np.eye(classes, dtype=np.float32)[y], batch_size=size, nb_epochs=epochs)
        return model
    warmup = warmup_epochs(run, len(x))
    if "history" in run:
        clip_by_history(optimizer, run["history"])
    trainer = (OnlyEps if run.get("only_eps") else AdversarialTrainerLFRPyTorch)(
        classifier,
        eps=run["eps"],
        max_iter=steps,
        eps_step=2 * run["eps"] / steps,
        warm_start=False,
        warmup_epochs=warmup,
        held_epochs=run.get("held_epochs"),
        max_grad_norm=run.get("max_grad_norm"),
        seed=run["seed"],
        verbose=False,
    )
    set_let_in(trainer, run.get("let_in", 1))
    trainer.fit(x, y, batch_size=size, nb_epochs=epochs)
    return model


def judged(run: dict[str, Any], model: nn.Module, x: Any, y: Any) -> dict[str, Any]:
    """Clean and PGD-20 accuracy in per cent, and whether the network is constant."""
    model.eval()
    inputs, targets, criterion = torch.from_numpy(x), torch.from_numpy(y), Criterion()
    _, correct, labels = classify(model, criterion, inputs, targets, len(x))
    ball = Ball(run["eps"], math.inf, Box.from_bounds((0.0, 1.0), inputs))
    adversarial = projected_gradient_descent(
        model,
        criterion,
        inputs,
        targets,
        ball=ball,
        steps=20,
        step_size=2.5 * run["eps"] / 20,
        start=ball.random_point(inputs, torch.Generator().manual_seed(0)),
    )
    _, withstood, _ = classify(model, criterion, adversarial, targets, len(x))
    share = float(labels.bincount().max()) / len(labels)
    return {
        "clean": 100 * float(correct.double().mean()),
        "pgd": 100 * float((correct & withstood).double().mean()),
        "constant": share > max(CONSTANT, 1.2 * float(targets.bincount().max()) / len(y)),
    }


def finished(results: Path) -> dict[str, dict[str, Any]]:
    """The results that are there, by the keys of their runs."""
    lines = results.read_text().splitlines() if results.exists() else []
    contents = [json.loads(line) for line in lines]
    return {key_of(content["run"]): content for content in contents}


@app.command()
def run(
    data: Path = Path("data"), results: Path = RESULTS, part: str = "0/1", only: str = ""
) -> None:
    """Train and judge every run that has no result yet."""
    torch.set_num_threads(1)
    index, parts = (int(number) for number in part.split("/"))
    todo = [r for r in planned() if r["cells"].startswith(only)]
    for number, settings in enumerate(todo):
        if number % parts != index or key_of(settings) in finished(results):
            continue
        x, y, x_judged, y_judged = images(settings, data)
        began = time.perf_counter()
        twins = {twin(c["run"], len(x)): c for c in finished(results).values()}
        known = twins.get(twin(settings, len(x)))
        try:
            if known is not None:
                outcome = {name: known[name] for name in ("clean", "pgd", "constant")}
            else:
                outcome = judged(settings, train(settings, x, y), x_judged, y_judged)
        except TrainingError as error:  # a loss that is not finite
            outcome = {"clean": 0.0, "pgd": 0.0, "constant": True, "error": str(error)}
        line = {
            "run": settings,
            **outcome,
            "seconds": time.perf_counter() - began,
            "versions": {"art_lfr": __version__, "torch": torch.__version__},
        }
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{number + 1} of {len(todo)}: {settings['cells']}, {settings['method']}", flush=True)


@app.command()
def table(results: Path = RESULTS) -> None:
    """For each method: cells, how many end constant, and how far the others are from the best."""
    from tabulate import tabulate

    plan = yaml.safe_load((FOLDER / "stability.yaml").read_text())
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for content in finished(results).values():
        about = [content["run"][name] for name in ("cells", "eps", "optimizer", "lr", "seed")]
        cells.setdefault(json.dumps(about), {})[content["run"]["method"]] = content
    whole = {key: cell for key, cell in cells.items() if len(cell) == len(plan["methods"])}
    for title in ("", *dict.fromkeys(json.loads(key)[0] for key in whole)):
        chosen = [cell for key, cell in whole.items() if title in ("", json.loads(key)[0])]
        best = [
            max((r["pgd"] for r in c.values() if not r["constant"]), default=0.0) for c in chosen
        ]
        rows = []
        for method in plan["methods"]:
            results_of = [cell[method] for cell in chosen]
            pairs = zip(results_of, best, strict=True)
            gaps = [b - r["pgd"] for r, b in pairs if not r["constant"]]
            constant = sum(r["constant"] for r in results_of)
            beside = sum(c[method]["constant"] and not c["TRADES"]["constant"] for c in chosen)
            far = sum(gap > FAR for gap in gaps)
            middle = median(gaps) if gaps else math.nan
            mean = sum(r["pgd"] for r in results_of) / len(chosen)
            clean = sum(r["clean"] for r in results_of) / len(chosen)
            rows.append([method, constant, beside, far, middle, clean, mean])
        header = ["method", "constant", "where TRADES is not", f"over {FAR} points behind"]
        header += ["median gap", "mean clean", "mean PGD-20"]
        print(f"\n**{title or 'All'}: {len(chosen)} cells**\n")
        print(tabulate(rows, header, "github", floatfmt=".1f"))


if __name__ == "__main__":
    app()
