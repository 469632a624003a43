"""The networks of `networks/`: taken from the runs of the published tables, and judged again.

    python benchmarks/robustness/shipped.py collect RUNS
    python benchmarks/robustness/shipped.py check --data-dir DIRECTORY

Of each table the network of LFR with seed 0 on split 0, by that rule, whatever its accuracy.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from art_lfr.comparison.judging import judge, load_split
from art_lfr.comparison.methods import make_classifier
from art_lfr.comparison.plan import Run, read_plan
from art_lfr.comparison.runner import WEIGHTS, read_result
from art_lfr.models.shipped import INDEX, entries, load_network
from art_lfr.storage.records import write_record

PLANS = Path(__file__).parent
NETWORKS = PLANS.parents[1] / "networks"
# The row of LFR as the package does it by default, in each published table, as far as it is run;
# that with the gradient clipped where there is no other (mnist-l2), or where it ends in a constant
# network otherwise (mnist-paper-cnn).
ROWS = {
    "digits-0.1": ("digits.yaml", "LFR, lam 0.5"),
    "digits-0.2": ("digits.yaml", "LFR"),
    "digits-l2": ("digits.yaml", "LFR"),
    "mnist": ("mnist.yaml", "LFR"),
    "mnist-l2": ("mnist-l2.yaml", "LFR"),
    "mnist-paper-cnn": ("mnist-paper-cnn.yaml", "LFR, clipped"),
    "cifar10": ("cifar10.yaml", "LFR"),
}
# In points: attacks may differ by an image where another machine rounds otherwise.
TOLERANCE = 0.5

app = typer.Typer(add_completion=False)


def runs() -> Iterator[tuple[str, str, Run]]:
    """Name, plan and run of each network."""
    for name, (plan, method) in ROWS.items():
        comparison = next(c for c in read_plan(PLANS / plan) if c.name == name)
        for run in comparison.runs():
            if (run.method, run.seed, run.split) == (method, 0, 0):
                yield name, plan, run


@app.command()
def collect(
    directory: Path,
    only: Annotated[str, typer.Option(help="Networks whose name contains this.")] = "",
) -> None:
    """Copy weights from the output folder of the comparisons, and write the index."""
    NETWORKS.mkdir(exist_ok=True)
    found: dict[str, Any] = entries(NETWORKS) if only else {}
    for name, plan, run in runs():
        if only not in name:
            continue
        target = NETWORKS / f"{name}.pt"
        shutil.copyfile(directory / "trainings" / run.training_key / WEIGHTS, target)
        found[name] = {
            "file": target.name,
            "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
            "model": run.settings["model"],
            "classes": 10,
            "plan": plan,
            "method": run.method,
            "settings": run.settings,
            "eps": run.comparison.eps,
            "norm": str(run.comparison.norm),
            "accuracy": read_result(run, directory)["accuracy"],
        }
    write_record(NETWORKS / INDEX, {"networks": found})
    typer.echo(f"{len(found)} networks in {NETWORKS}")


@app.command()
def check(
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plans lie.")] = Path(),
    only: Annotated[str, typer.Option(help="Networks whose name contains this.")] = "",
) -> None:
    """Attack each network anew; status 1 where an accuracy differs from the published one."""
    index, differ = entries(NETWORKS), False
    for name, _, run in runs():
        if only not in name:
            continue
        split = load_split(run.comparison, run.split, data_dir)
        network = load_network(NETWORKS / index[name]["file"])
        classifier = make_classifier(network, run, split.x_train, index[name]["classes"])
        for row in judge(classifier, split, run.comparison).rows:
            published = index[name]["accuracy"][row.name]
            typer.echo(
                f"{name} {row.name}: {100 * row.accuracy:.1f}, published {100 * published:.1f}"
            )
            differ |= abs(row.accuracy - published) > TOLERANCE / 100
    if differ:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
