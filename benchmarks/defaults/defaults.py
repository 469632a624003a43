"""The experiment behind the default lam, radius, eps_step and batch_norm.

    python benchmarks/defaults/defaults.py table
    python benchmarks/defaults/defaults.py run --data DIRECTORY --results FILE.jsonl

The first prints the tables of docs/defaults.md, the second makes their runs again. DIRECTORY has
mnist.npz and cifar10_jpeg.npz (which needs Pillow).

Every line of defaults.yaml is one training run, judged on validation images that are part of the
training data. A run that has its line in the file of results is not repeated.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import typer
import yaml
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, __version__, evaluate
from art_lfr.core.machine import describe_machine
from art_lfr.data import digits, load, random_flip
from art_lfr.models import digits_cnn, narrow_resnet, small_cnn

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.jsonl"
MODELS = {"digits": digits_cnn, "mnist": small_cnn, "cifar10": narrow_resnet}
FILES = {"mnist": "mnist.npz", "cifar10": "cifar10_jpeg.npz"}
app = typer.Typer(add_completion=False, help=__doc__)


def groups() -> list[dict[str, Any]]:
    """Groups of runs: the settings that each has in common, and its variants."""
    found: list[dict[str, Any]] = yaml.safe_load((FOLDER / "defaults.yaml").read_text())
    return found


def runs_of(group: dict[str, Any], variant: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of a variant's runs."""
    seeds = group.get("seeds", [0])
    return [{**group["common"], **variant, "seed": seed} for seed in seeds]


def key_of(experiment: dict[str, Any]) -> str:
    """What identifies a run: all its settings."""
    return json.dumps(experiment, sort_keys=True)


def finished(results: Path) -> dict[str, dict[str, Any]]:
    """The results of the runs that are done, by their keys."""
    lines = results.read_text().splitlines() if results.exists() else []
    contents = [json.loads(line) for line in lines]
    return {key_of(content["experiment"]): content for content in contents}


def images(e: dict[str, Any], directory: Path) -> tuple[Any, ...]:
    """x_train, y_train, x_validation, y_validation; test images are not read.

    The last training images are held out; of the others the first `train` are used.
    """
    count = e["validation"]
    if e["data"] == "digits":
        data = digits()
        x = np.concatenate([data.x_train, data.x_validation])
        y = np.concatenate([data.y_train, data.y_validation])
        return x[:-count], y[:-count], x[-count:], y[-count:]
    data = load(directory / FILES[e["data"]], train=e["train"], validation=count, test=0)
    return data.x_train, data.y_train, data.x_validation, data.y_validation


def train(e: dict[str, Any], arrays: tuple[Any, ...]) -> tuple[PyTorchClassifier, float]:
    """Train one network; the classifier and its seconds."""
    torch.manual_seed(e["seed"])
    model = MODELS[e["data"]](e["seed"])
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=e.get("weight_decay", 0.0)
    )
    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        arrays[0].shape[1:],
        10,
        optimizer=optimizer,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    norm, eps, steps = float(e["norm"]), e["eps"], e["steps"]
    pgd = ProjectedGradientDescent(
        classifier,
        norm=norm,
        eps=eps,
        eps_step=e["step"] * eps / steps,
        max_iter=steps,
        num_random_init=1,
        batch_size=1024,
        verbose=False,
    )
    adversarial = e.get("method") == "PGD adversarial training"
    trainer = AdversarialTrainerLFRPyTorch(
        classifier,
        norm=norm,
        eps=eps,
        max_iter=steps,
        eps_step=e["step"] * eps / steps,
        lam=0.0 if adversarial else e["lam"] * eps,
        radius=e.get("radius", 1.0) * eps,
        estimator=e.get("estimator", "finite-difference"),
        batch_norm=e.get("batch_norm", "eval"),
        warmup_epochs=e["warmup"],
        held_epochs=0.0,
        max_grad_norm=None,
        warm_start=False,
        renew_every=1,
        attack=pgd if adversarial else None,
        augment=random_flip if e.get("flip") else None,
        seed=e["seed"],
        verbose=False,
    )
    batches = math.ceil(len(arrays[0]) / e["batch_size"])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=e["lr"], total_steps=e["epochs"] * (batches + 1)
    )
    began = time.perf_counter()
    trainer.fit(
        arrays[0],
        arrays[1],
        batch_size=e["batch_size"],
        nb_epochs=e["epochs"],
        scheduler=scheduler,
        scheduler_interval="batch",
    )
    return classifier, time.perf_counter() - began


@app.command()
def run(
    data: Path = Path("data"), results: Path = RESULTS, threads: int = 1, only: str = ""
) -> None:
    """Train and judge every run that has no result yet."""
    torch.set_num_threads(threads)
    planned = [e for group in groups() for v in group["variants"] for e in runs_of(group, v)]
    planned = [e for e in planned if e["data"].startswith(only)]
    done = finished(results)
    todo = [e for e in planned if key_of(e) not in done]
    print(f"{len(planned) - len(todo)} of {len(planned)} runs are done")
    for number, experiment in enumerate(todo, 1):
        arrays = images(experiment, data)
        classifier, seconds = train(experiment, arrays)
        attacks = ["PGD-40", "APGD-T"] + (["Square"] if float(experiment["norm"]) != 1 else [])
        measured = evaluate(
            classifier,
            arrays[2],
            arrays[3],
            eps=experiment["eps"],
            norm=float(experiment["norm"]),
            attacks=attacks,
        ).to_dict()
        content = {
            "experiment": experiment,
            "seconds": round(seconds, 1),
            "evaluation": {k: v for k, v in measured.items() if k != "per_sample"},
            "versions": {"art_lfr": __version__, "torch": torch.__version__},
            "machine": describe_machine(),
        }
        with results.open("a") as file:
            file.write(json.dumps(content) + "\n")
        worst = {row["name"]: row["accuracy"] for row in measured["rows"]}
        print(f"{number}/{len(todo)} {experiment} {seconds:.0f} s {worst}", flush=True)


@app.command()
def table(results: Path = RESULTS) -> None:
    """Print the finished runs as Markdown tables, a group of common settings each."""
    done = finished(results)
    for group in groups():
        print(f"\n**{group['title']}**\n")
        rows = []
        for variant in group["variants"]:
            keys = [key_of(experiment) for experiment in runs_of(group, variant)]
            found = [done[key] for key in keys if key in done]
            if not found:
                continue
            rates = pd.DataFrame(
                [{r["name"]: r["accuracy"] for r in f["evaluation"]["rows"]} for f in found]
            ).mean()
            rows.append(
                {
                    **variant,
                    "runs": len(found),
                    **{name: f"{100 * rate:.1f}" for name, rate in rates.items()},
                    "seconds": round(sum(f["seconds"] for f in found) / len(found)),
                }
            )
        columns = list(dict.fromkeys(key for v in group["variants"] for key in v))
        frame = pd.DataFrame(rows, dtype=object)
        frame = frame[[c for c in columns if c in frame] + [c for c in frame if c not in columns]]
        print(frame.fillna("").to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    app()
