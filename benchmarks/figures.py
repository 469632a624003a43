"""The figures of the paper, for the networks of a comparison.

    python benchmarks/figures.py benchmarks/comparisons/mnist.yaml mnist --data-dir DATA \
        --runs RUNS --output benchmarks/results/figures \
        --method standard --method "AT, lr 0.05" --method "LFR exact" --method LFR

Draws flatness against vulnerability, loss surfaces, input gradients and accuracy against eps with
`art-lfr plot`, for the weights of the first seed and split, and writes the numbers beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_lfr.cli.app import main as art_lfr
from art_lfr.comparison.plan import read_plan

KINDS = ("flatness", "surface", "gradients", "curve")


def main(
    plan: Path,
    name: str,
    runs: Annotated[Path, typer.Option(help="Where `art-lfr compare` left its trainings.")],
    output: Annotated[Path, typer.Option(help="Folder for the figures.")],
    method: Annotated[list[str], typer.Option(help="A method of the plan; repeat it.")],
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plan lie.")] = Path(),
) -> None:
    """Draw the four figures."""
    comparison = next(c for c in read_plan(plan) if c.name == name)
    found = {run.method: run for run in reversed(list(comparison.runs()))}
    weights = {m: runs / "trainings" / found[m].training_key / "weights.pt" for m in method}
    output.mkdir(parents=True, exist_ok=True)
    first, *others = weights
    data = comparison.data
    for kind in KINDS:
        path = output / f"{name}-{kind}.png"
        numbers = path.with_suffix(".csv")
        command = ["plot", kind, "--model", comparison.model, "--eps", str(comparison.eps)]
        command += ["--norm", str(comparison.norm), "--output", str(path)]
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
