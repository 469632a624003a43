"""How right a comparison's networks are by BatchNorm's running and by a batch's own statistics.

    python benchmarks/failure_case/statistics_gap.py --data-dir DATA --runs RUNS

A network that is right by the statistics of the batch at hand, as in training, and wrong by the
running ones, as in every evaluation, shows a high training accuracy beside a low test accuracy on
whatever images: overfitting has nothing to do with it. So training images are measured both ways.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from torch import Tensor, nn

from art_lfr.cli.inputs import load_model, table_forms, write_output
from art_lfr.comparison.judging import load_split
from art_lfr.core.modes import mode
from art_lfr.storage.tensor_files import load_safely
from art_lfr.training.averaging import copied_state, put_state

sys.path.insert(0, str(Path(__file__).parents[1]))
from plans import comparison_named, weights_path

TABLE = Path(__file__).parent / "statistics.csv"


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor, *, batch_statistics: bool) -> float:
    """Share of right images, in batches of 128; the running statistics are left as found."""
    state = copied_state(model)
    with mode(model, training=batch_statistics):
        batches = zip(torch.split(x, 128), torch.split(y, 128), strict=True)
        right = sum(float((model(a).argmax(dim=1) == b).sum()) for a, b in batches)
    put_state(model, state)
    return right / len(x)


def main(
    runs: Annotated[Path, typer.Option(help="Where `art-lfr compare` left its trainings.")],
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plan lie.")] = Path(),
    name: Annotated[str, typer.Option(help="The comparison.")] = "failure",
    output: Annotated[Path, typer.Option(help="The .csv file.")] = TABLE,
) -> None:
    """Measure every trained network of one comparison, on its training and judged images."""
    comparison = comparison_named(name)
    rows = []
    for run in comparison.runs():
        weights = weights_path(run, runs)
        if not weights.exists():
            continue
        split = load_split(comparison, run.split, data_dir)
        model = load_model(run.settings["model"], None, run.seed, int(split.y_train.max()) + 1)
        model.load_state_dict(load_safely(weights))
        row: dict[str, object] = {"method": run.method, "seed": run.seed}
        count = len(split.x)
        for part, x, y in (
            ("training", split.x_train[:count], split.y_train[:count]),
            ("held out", split.x, split.y),
        ):
            inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
            for kind, batch_statistics in (("running", False), ("batch", True)):
                rate = accuracy(model, inputs, labels, batch_statistics=batch_statistics)
                row[f"{part}, {kind} statistics"] = round(100 * rate, 1)
        rows.append(row)
    table = pd.DataFrame(rows)
    typer.echo(table.to_string(index=False))
    write_output(output, table_forms(table))


if __name__ == "__main__":
    typer.run(main)
