"""The figures of the paper, for the networks of a comparison.

    python benchmarks/robustness/figures.py --data-dir DATA --runs RUNS

Draws flatness against vulnerability, loss surfaces, input gradients and accuracy against eps with
`art-lfr plot`, for the weights of the first seed and split, and writes the numbers beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from art_lfr.cli.app import main as art_lfr

sys.path.insert(0, str(Path(__file__).parents[1]))
from plans import comparison_named, first_runs, weights_path

FIGURES = Path(__file__).parent / "figures"
KINDS = ("flatness", "surface", "gradients", "curve")
METHODS = ("standard", "AT, lr 0.05, 6 epochs", "LFR exact", "LFR")
# What the figures call them.
NAMES = {"AT, lr 0.05, 6 epochs": "adversarial training", "LFR exact": "LFR, exact"}
NETWORKS = Path(__file__).parents[2] / "networks"
# Networks that are kept, for those who have no RUNS of them.
KEPT = {"AT, lr 0.05, 6 epochs": "mnist-at", "LFR": "mnist"}


def main(
    runs: Annotated[Path, typer.Option(help="Where `art-lfr compare` left its trainings.")],
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plan lie.")] = Path(),
    name: Annotated[str, typer.Option(help="The comparison.")] = "mnist",
    method: Annotated[list[str], typer.Option(help="A method of it; repeat it.")] = list(METHODS),  # noqa: B006
    output: Annotated[Path, typer.Option(help="Folder for the figures.")] = FIGURES,
) -> None:
    """Draw the four figures."""
    comparison = comparison_named(name)
    run_of = first_runs(comparison)
    weights = {}
    for each in method:
        path = weights_path(run_of[each], runs)
        kept = NETWORKS / f"{KEPT.get(each)}.safetensors"
        weights[NAMES.get(each, each)] = path if path.exists() or name != "mnist" else kept
    output.mkdir(parents=True, exist_ok=True)
    first, *others = weights
    data = comparison.data
    for kind in KINDS:
        path = output / f"{name}-{kind}.png"
        numbers = path.with_suffix(".csv")
        command = ["plot", kind, "--model", comparison.model, "--output", str(path)]
        if kind != "gradients":
            command += ["--eps", str(comparison.eps), "--norm", str(comparison.norm)]
        command += ["--data", str(data_dir / data) if data.endswith(".npz") else data]
        command += ["--name", first, "--weights", str(weights[first])]
        for other in others:
            command += ["--compare", f"{other}={weights[other]}"]
        if kind != "surface":
            command += ["--numbers", str(numbers)]
        if (status := art_lfr(command)) != 0:
            raise SystemExit(status)


if __name__ == "__main__":
    typer.run(main)
