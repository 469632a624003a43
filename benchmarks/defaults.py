"""The experiment behind the default lam, radius, eps_step and batch_norm.

    python benchmarks/defaults.py run benchmarks/defaults.yaml --data DIRECTORY
    python benchmarks/defaults.py table benchmarks/defaults.yaml

The second prints the tables of docs/defaults.md.

Every line of the YAML file is one training run, judged on validation images that are part of the
training data. A run that has its result in benchmarks/results/defaults is not repeated.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import typer
import yaml
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from datasets import MODELS, load
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, __version__, evaluate
from art_lfr.comparison.machine import describe_machine
from art_lfr.data import random_flip
from art_lfr.storage.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "defaults"
app = typer.Typer(add_completion=False, help=__doc__)


def experiments(path: Path) -> list[dict[str, Any]]:
    """The runs of a file: each group's common settings with each of its variants."""
    groups = yaml.safe_load(path.read_text())
    return [
        {**group["common"], **variant, "seed": seed}
        for group in groups
        for variant in group["variants"]
        for seed in group.get("seeds", [0])
    ]


def result_path(experiment: dict[str, Any]) -> Path:
    """Where a run's result lies: named by a hash of its settings."""
    key = hashlib.sha1(json.dumps(experiment, sort_keys=True).encode()).hexdigest()[:10]
    return RESULTS / f"{experiment['data']}-{key}.json"


def train(e: dict[str, Any], arrays: tuple[Any, ...]) -> tuple[PyTorchClassifier, float]:
    """Train one network; the classifier and its seconds."""
    torch.manual_seed(e["seed"])
    model = MODELS[e["data"]](e["seed"]) if e["data"] != "cifar10" else MODELS["cifar10"]()
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
def run(file: Path, data: Path = Path("data"), threads: int = 1, only: str = "") -> None:
    """Train and judge every run that has no result yet."""
    torch.set_num_threads(threads)
    RESULTS.mkdir(parents=True, exist_ok=True)
    todo = [e for e in experiments(file) if e["data"].startswith(only)]
    todo = [e for e in todo if not result_path(e).exists()]
    for number, experiment in enumerate(todo, 1):
        arrays = load(experiment["data"], data, experiment.get("train"), experiment["validation"])
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
        write_atomically(result_path(experiment), json.dumps(content, indent=1) + "\n")
        worst = {row["name"]: row["accuracy"] for row in measured["rows"]}
        print(f"{number}/{len(todo)} {experiment} {seconds:.0f} s {worst}", flush=True)


@app.command()
def table(file: Path) -> None:
    """Print the finished runs as Markdown tables, a group of common settings each."""
    for group in yaml.safe_load(file.read_text()):
        print(f"\n**{group['title']}**\n")
        rows = []
        for variant in group["variants"]:
            found = [
                json.loads(path.read_text())
                for seed in group.get("seeds", [0])
                if (path := result_path({**group["common"], **variant, "seed": seed})).exists()
            ]
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
