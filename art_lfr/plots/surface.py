"""The loss on a plane through a sample, along an adversarial and a random direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from art_lfr.art.adapter import BoundsChoice
from art_lfr.core.arguments import Array, check_integer, check_number
from art_lfr.core.criterion import LossLike
from art_lfr.core.geometry import Ball, parse_norm, steepest_direction
from art_lfr.core.randomness import normal_like
from art_lfr.plots.problem import Problem, make_problem, strongest_examples

if TYPE_CHECKING:
    import pandas

# Values of a and b go from -REACH to REACH: the edge of the ball, 1, is well inside.
REACH = 1.5


@dataclass(frozen=True, eq=False)
class LossSurface:
    """Losses at clip(x + a d + b r) for each of N samples.

    `reach` (points,) holds the values that a and b take; 1 is the adversarial example along a,
    and a random perturbation of length eps along b. `losses` (N, points, points) has a in its
    second axis, b in its third. `clean`, `adversarial` and `random` (N,) are the losses at (0, 0),
    (1, 0) and (0, 1). Losses are in the loss's unit, nats for cross-entropy.
    """

    eps: float
    norm: str
    labels: Array
    reach: Array
    losses: Array
    clean: Array
    adversarial: Array
    random: Array

    def summary(self) -> dict[str, float]:
        """Means over the samples of the losses at (0, 0), (1, 0) and (0, 1)."""
        return {
            "samples": len(self.labels),
            "mean loss, clean": float(self.clean.mean()),
            "mean loss, adversarial": float(self.adversarial.mean()),
            "mean loss, random": float(self.random.mean()),
        }

    def to_frame(self) -> pandas.DataFrame:
        """One row for each point of each plane."""
        import pandas

        count, points = len(self.labels), len(self.reach)
        index, a, b = np.indices((count, points, points)).reshape(3, -1)
        frame: pandas.DataFrame = pandas.DataFrame(
            {
                "index": index,
                "label": self.labels[index],
                "adversarial": self.reach[a],
                "random": self.reach[b],
                "loss": self.losses.ravel(),
            }
        )
        return frame


def loss_surface(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: float,
    norm: float | str = math.inf,
    points: int = 25,
    steps: int = 20,
    restarts: int = 5,
    bounds: BoundsChoice = "auto",
    loss: LossLike = None,
    batch_size: int = 256,
    seed: int = 0,
) -> LossSurface:
    """The loss at clip(x + a d + b r), a and b from -1.5 to 1.5, around each of a few samples.

    d = x' - x leads to the strongest example x' that PGD finds in the eps-ball, so ||d||_p <= eps.
    r is a random direction of norm eps: random signs for norm inf, a normalised Gaussian for 2,
    random signs on 1 % of the coordinates for 1, the same for every model with the same `seed`.
    Each point is clipped to `bounds`: near their edge the plane is bent. Where |a| + |b| > 1 a
    point may lie outside the ball.

    Args:
        model: A module that maps (N, ...) to logits; or an ART `PyTorchClassifier`, whose own
            loss, preprocessing and `clip_values` are then used.
        x: Inputs, shape (N, ...), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows.
        eps: Radius of the ball, > 0, in raw units.
        norm: p: np.inf, 2 or 1.
        points: Values of a and of b, >= 2; with 6 k + 1 of them, 0 and 1 are among the values.
        steps: PGD steps, >= 1.
        restarts: PGD starts, >= 1.
        bounds: Valid inputs (low, high), numbers or per-feature arrays, or None.
        loss: None (cross-entropy), a `torch.nn` loss, or a callable (logits, y) -> (N,).
        batch_size: Points at a time.
        seed: Seed of the starts and of the random direction.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
    """
    check_number("eps", eps, low_allowed=False)
    check_integer("points", points, low=2)
    check_integer("steps", steps, low=1)
    check_integer("restarts", restarts, low=1)
    check_integer("seed", seed, low=0)
    p = parse_norm(norm)
    problem = make_problem(model, x, y, bounds=bounds, loss=loss, batch_size=batch_size)
    noise = normal_like(problem.x, torch.Generator().manual_seed(seed))
    random = eps * steepest_direction(noise, p)
    reach = torch.linspace(-REACH, REACH, points, dtype=torch.float64, device=random.device)
    with problem.preserved():
        strongest, adversarial = strongest_examples(
            problem, Ball(eps, p, problem.box), steps=steps, restarts=restarts, seed=seed
        )
        surfaces = [
            _losses_on_plane(problem, index, strongest[index] - problem.x[index], r, reach)
            for index, r in enumerate(random)
        ]
        clean = problem.losses(problem.x, problem.y)
        beside = problem.losses(problem.box.clip(problem.x + random), problem.y)
    return LossSurface(
        eps=float(eps),
        norm=f"{p:g}",
        labels=problem.labels.numpy(),
        reach=reach.cpu().numpy(),
        losses=torch.stack(surfaces).cpu().numpy(),
        clean=clean.cpu().numpy(),
        adversarial=adversarial.cpu().numpy(),
        random=beside.cpu().numpy(),
    )


def _losses_on_plane(problem: Problem, index: int, d: Tensor, r: Tensor, reach: Tensor) -> Tensor:
    """Losses around one sample, (points, points); d and r have the shape of a sample."""
    x, y = problem.x[index], problem.y[index : index + 1]
    steps = reach.to(d.dtype).reshape(-1, *([1] * x.dim()))
    rows = []
    for step in steps:
        row = problem.box.clip(x + step * d + steps * r)
        rows.append(problem.losses(row, y.expand(len(row), *y.shape[1:])))
    return torch.stack(rows)
