"""Where a network is steep: at PGD's example, and at the least flat points that ascents find.

And how many images' points a step of the ascent leaves in place.

    python benchmarks/why_it_works/slope_at_examples.py digits-0.2 --runs RUNS \
        --method LFR --method "control, both ends"

Means over the judged images of ||grad l||_q and of the loss, for the first seed and split.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from art_lfr.cli.inputs import load_model
from art_lfr.comparison.judging import load_split
from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.geometry import Ball, Box, dual_norm, sample_norm
from art_lfr.core.gradients import input_gradient
from art_lfr.core.names import parse_norm
from art_lfr.core.pgd import projected_gradient_descent
from art_lfr.core.settings import LFRSettings
from art_lfr.penalties import LocalFlatness, LossView

sys.path.insert(0, str(Path(__file__).parents[1]))
from plans import comparison_named, first_runs, weights_path

# Where the ascents of the package end, by what the settings say.
ASCENTS: dict[str, dict[str, Any]] = {
    "the least flat point": {},
    "that of renewing every second": {"renew_every": 2},
    "that of never renewing": {"renew_every": 1000},
    "that of the ascent in bfloat16": {"autocast": True},
}


def main(
    name: Annotated[str, typer.Argument(help="The comparison.")],
    runs: Annotated[Path, typer.Option(help="Where `art-lfr compare` left its trainings.")],
    method: Annotated[list[str], typer.Option(help="A method of the plan; repeat it.")],
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plan lie.")] = Path(),
    steps: Annotated[int, typer.Option(help="Steps of both searches.")] = 5,
) -> None:
    """Print a line for each method."""
    comparison = comparison_named(name)
    run_of = first_runs(comparison)
    eps, criterion = float(comparison.eps), Criterion()
    settings = LFRSettings(eps=eps, norm=parse_norm(comparison.norm), steps=steps, renew_every=1)
    for each in method:
        run = run_of[each]
        network = load_model(run.settings["model"], weights_path(run, runs)).eval()
        split = load_split(comparison, run.split, data_dir)
        x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
        ball = Ball(eps, settings.norm, Box.from_bounds((0.0, 1.0), x))
        generator = torch.Generator().manual_seed(0)
        example = projected_gradient_descent(
            network,
            criterion,
            x,
            y,
            ball=ball,
            steps=steps,
            step_size=2 * eps / steps,
            start=ball.random_point(x, generator),
        )
        points = {"PGD's example": example}
        for where, changed in ASCENTS.items():
            view = LossView(network, criterion, ball.box, replace(settings, **changed))
            start = ball.start_point(x, generator.manual_seed(0))
            points[where] = LocalFlatness().search(view, x, y, start).point
        measured = []
        for where, point in points.items():
            slope = sample_norm(input_gradient(network, criterion, point, y), dual_norm(ball.p))
            with torch.no_grad():
                loss = criterion.values(logits_of(network(point)), y)
            measured.append(f"at {where} slope {slope.mean():.2f}, loss {loss.mean():.2f}")
        visited = iterates(network, view, x, y, ball.start_point(x, generator.manual_seed(0)))
        still = [(a == b).flatten(1).all(dim=1) for a, b in pairwise(visited)]
        measured.append(f"left in place {100 * torch.stack(still).float().mean():.2f} %")
        typer.echo(f"{each}: {'; '.join(measured)}")


def iterates(
    network: nn.Module, view: LossView, x: Tensor, y: Tensor, start: Tensor
) -> list[Tensor]:
    """The points that the default ascent visits: every second of those it asks the network for."""
    seen: list[Tensor] = []
    handle = network.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    settings = replace(view.settings, autocast=False, renew_every=1)
    LocalFlatness().search(replace(view, settings=settings), x, y, start)
    handle.remove()
    return seen[::2]


if __name__ == "__main__":
    typer.run(main)
