"""What the figures show: loss surfaces, vulnerability against flatness, and gradient maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from art_lfr.art.module import BoundsChoice
from art_lfr.core.arguments import Array, check_integer
from art_lfr.core.criterion import LossLike
from art_lfr.core.flatness import find_least_flat_point
from art_lfr.core.geometry import Ball, sample_norm, steepest_direction
from art_lfr.core.imports import data_frame
from art_lfr.core.randomness import normal_like
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError
from art_lfr.plots.problem import Problem, frame_of, make_problem, strongest_examples

if TYPE_CHECKING:
    import pandas


# Values of a and b go from -REACH to REACH: the edge of the ball, 1, is well inside.
REACH = 1.5
# Points of the outline of a ball; the last one is the first.
ANGLES = 181
# A difference of two float32 losses is known up to this share of the larger one (at least 1).
ROUNDING = 32 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class LossSurface:
    """Losses at clip(x + a d + b r) for each of N samples.

    `reach` (points,) holds the values that a and b take; 1 is the adversarial example along a,
    and a random perturbation of length eps along b. `losses` (N, points, points) has a in its
    second axis, b in its third. `clean`, `adversarial` and `random` (N,) are the losses at (0, 0),
    (1, 0) and (0, 1). Losses are in the loss's unit, nats for cross-entropy. `edge` (N, angles, 2)
    are the a and b at which the plane leaves the ball, all around; NaN where it does not, as d
    is 0.
    """

    eps: float
    norm: str
    labels: Array
    reach: Array
    losses: Array
    clean: Array
    adversarial: Array
    random: Array
    edge: Array
    about: ClassVar[str] = (
        "Losses in nats (of cross-entropy): at the image, at the strongest example found, and in a "
        "random direction of length eps. Lower is more robust."
    )

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
        count, points = len(self.labels), len(self.reach)
        index, a, b = np.indices((count, points, points)).reshape(3, -1)
        return data_frame(
            {
                "index": index,
                "label": self.labels[index],
                "adversarial": self.reach[a],
                "random": self.reach[b],
                "loss": self.losses.ravel(),
            }
        )


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
    Each point is clipped to `bounds`: near their edge the plane is bent. Where the unclipped plane
    leaves the ball is in `edge`.

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
    check_integer("points", points, low=2)
    settings: dict[str, Any] = {"bounds": bounds, "loss": loss, "batch_size": batch_size}
    problem = make_problem(model, x, y, eps=eps, norm=norm, seed=seed, **settings)
    noise = normal_like(problem.x, torch.Generator().manual_seed(seed))
    random = eps * steepest_direction(noise, problem.ball.p)
    reach = torch.linspace(-REACH, REACH, points, dtype=torch.float64, device=random.device)
    with problem.preserved():
        strongest, adversarial = strongest_examples(problem, steps=steps, restarts=restarts)
        towards = strongest - problem.x
        edges = [_edge(d, r, problem.ball) for d, r in zip(towards, random, strict=True)]
        surfaces = [
            _losses_on_plane(problem, index, towards[index], r, reach)
            for index, r in enumerate(random)
        ]
        clean = problem.losses(problem.x, problem.y)
        beside = problem.losses(problem.ball.box.clip(problem.x + random), problem.y)
    return LossSurface(
        eps=float(eps),
        norm=f"{problem.ball.p:g}",
        labels=problem.labels.numpy(),
        reach=reach.cpu().numpy(),
        losses=torch.stack(surfaces).cpu().numpy(),
        clean=clean.cpu().numpy(),
        adversarial=adversarial.cpu().numpy(),
        random=beside.cpu().numpy(),
        edge=torch.stack(edges).cpu().numpy(),
    )


def _edge(d: Tensor, r: Tensor, ball: Ball) -> Tensor:
    """Where a d + b r leaves the ball, (ANGLES, 2): a and b, once around and closed."""
    angles = torch.linspace(0, 2 * math.pi, ANGLES, dtype=d.dtype, device=d.device)
    ab = torch.stack([angles.cos(), angles.sin()], dim=1)
    moved = ab[:, :1] * d.flatten() + ab[:, 1:] * r.flatten()
    reach = ball.eps / sample_norm(moved, ball.p)
    # A constant network has no adversarial direction: towards it there is no edge.
    return ab * torch.where(reach.isinf(), torch.nan, reach)[:, None]


def _losses_on_plane(problem: Problem, index: int, d: Tensor, r: Tensor, reach: Tensor) -> Tensor:
    """Losses around one sample, (points, points); d and r have the shape of a sample."""
    x, y = problem.x[index], problem.y[index : index + 1]
    steps = reach.to(d.dtype).reshape(-1, *([1] * x.dim()))
    rows = []
    for step in steps:
        row = problem.ball.box.clip(x + step * d + steps * r)
        rows.append(problem.losses(row, y.expand(len(row), *y.shape[1:])))
    return torch.stack(rows)


@dataclass(frozen=True, eq=False)
class Vulnerability:
    """What was found around each sample; every array has shape (N,).

    `loss` l(x) and `vulnerability` V(x) are in the loss's unit (nats for cross-entropy),
    `flatness` LF(x) in that per unit of x. V and LF are lower bounds of the true ones, as both
    are found by ascent.
    """

    eps: float
    norm: str
    labels: Array
    loss: Array
    vulnerability: Array
    flatness: Array
    about: ClassVar[str] = (
        "In nats (of cross-entropy): the loss; the vulnerability, its largest rise found within "
        "eps; and the bound, eps times the local flatness, which no rise exceeds. Lower is more "
        "robust. The share of the bound and the rank correlation have no unit."
    )

    @property
    def bound(self) -> Array:
        """eps * LF(x), shape (N,): the true V(x) is at most eps times the true LF(x)."""
        return self.eps * self.flatness

    @property
    def violated(self) -> Array:
        """Where V(x) > eps * LF(x) beyond rounding, with V and LF as found, booleans (N,).

        The theorem holds for the true LF, so a violation proves that the ascent missed the least
        flat point of that ball. Nothing is clipped.
        """
        size = np.maximum(
            1.0, np.maximum(np.abs(self.loss), np.abs(self.loss + self.vulnerability))
        )
        violated: Array = self.vulnerability > self.bound + ROUNDING * size
        return violated

    @property
    def rank_correlation(self) -> float:
        """Spearman's correlation of LF and V over the samples; NaN where one is constant."""
        ranks = self.to_frame()[["flatness", "vulnerability"]].rank()
        if (ranks.nunique() < 2).any():
            return math.nan
        return float(np.corrcoef(ranks.to_numpy().T)[0, 1])

    def summary(self) -> dict[str, float]:
        """Means over the samples, the median share of the bound that V takes, and violations."""
        positive = self.bound > 0
        shares = self.vulnerability[positive] / self.bound[positive]
        return {
            "samples": len(self.labels),
            "mean loss": float(self.loss.mean()),
            "mean vulnerability": float(self.vulnerability.mean()),
            "mean bound": float(self.bound.mean()),
            "median vulnerability / bound": float(np.median(shares)) if len(shares) else math.nan,
            "rank correlation": self.rank_correlation,
            "bound violated": int(self.violated.sum()),
        }

    def to_frame(self) -> pandas.DataFrame:
        """One row for each sample."""
        return frame_of(self, "loss", "vulnerability", "flatness", "bound", "violated")


def vulnerability(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: float,
    norm: float | str = math.inf,
    steps: int = 20,
    restarts: int = 5,
    bounds: BoundsChoice = "auto",
    loss: LossLike = None,
    batch_size: int = 256,
    seed: int = 0,
) -> Vulnerability:
    """Local flatness and vulnerability around each sample, for the bound V(x) <= eps * LF(x).

    V(x) = max over x' with ||x' - x||_p <= eps, inside `bounds`, of l(x') - l(x), and LF(x) the
    largest ||grad l(x')||_q there, 1/p + 1/q = 1. V is the highest loss found among x itself, the
    one-step maximiser of the linearised loss, all iterates of PGD from random starts, and the
    least flat point found. LF is what `local_flatness` finds.

    Source of the bound: Xu, Li, Jiang, Xia, "Adversarial Defense via Local Flatness
    Regularization", ICIP 2020.

    Args:
        model: A module that maps (N, ...) to logits; or an ART `PyTorchClassifier`, whose own
            loss, preprocessing and `clip_values` are then used.
        x: Inputs, shape (N, ...), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows.
        eps: Radius of the ball, > 0, in raw units.
        norm: p: np.inf, 2 or 1.
        steps: Steps of each ascent, of the loss and of the gradient norm, >= 1.
        restarts: Starts of each, >= 1.
        bounds: Valid inputs (low, high), numbers or per-feature arrays, or None.
        loss: None (cross-entropy), a `torch.nn` loss, or a callable (logits, y) -> (N,).
        batch_size: Samples at a time.
        seed: Seed of all starts.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
    """
    settings: dict[str, Any] = {"bounds": bounds, "loss": loss, "batch_size": batch_size}
    problem = make_problem(model, x, y, eps=eps, norm=norm, seed=seed, **settings)
    with problem.preserved():
        _, highest = strongest_examples(problem, steps=steps, restarts=restarts)
        clean = problem.losses(problem.x, problem.y)
        flatness, steep = _flatness(problem, steps, restarts)
    rise = torch.stack([highest, steep, clean]).amax(dim=0).double() - clean.double()
    return Vulnerability(
        eps=float(eps),
        norm=f"{problem.ball.p:g}",
        labels=problem.labels.numpy(),
        loss=clean.double().cpu().numpy(),
        vulnerability=rise.cpu().numpy(),
        flatness=flatness.double().cpu().numpy(),
    )


def _flatness(problem: Problem, steps: int, restarts: int) -> tuple[Tensor, Tensor]:
    """||grad l||_q at the least flat points found, and the highest loss at them, each (N,)."""
    generator, ball = torch.Generator().manual_seed(problem.seed), problem.ball
    settings = LFRSettings(eps=ball.eps, norm=ball.p, steps=steps, renew_every=1)
    flatness, losses = [], []
    for draw in [ball.start_point] + [ball.random_point] * (restarts - 1):
        points = [
            find_least_flat_point(
                problem.module,
                problem.criterion,
                x,
                y,
                ball=ball,
                settings=settings,
                start=draw(x, generator),
            )
            for x, y in problem.batches()
        ]
        flatness.append(torch.cat([best.flatness for best in points]))
        losses.append(problem.losses(torch.cat([best.point for best in points]), problem.y))
    return torch.stack(flatness).amax(dim=0), torch.stack(losses).amax(dim=0)


def alignment(images: Array, gradients: Array) -> Array:
    """|<x, g>| / ||g||_2 of each sample: (N, ...) and (N, ...) -> (N,); NaN where g is 0.

    At most ||x||_2, where g points along x or against it; it has x's unit and does not change
    with g's length. Source: Etmann, Lunz, Maass, Schoenlieb, "On the Connection Between
    Adversarial Robustness and Saliency Map Interpretability", ICML 2019, where g is the gradient
    of the winning logit. Raises ValueError where the shapes differ.
    """
    if images.shape != gradients.shape or images.ndim < 2:
        raise UsageError(
            f"images has shape {images.shape} and gradients {gradients.shape}; allowed: the same "
            "shape (N, ...)"
        )
    x, g = (array.reshape(len(array), -1).astype(np.float64) for array in (images, gradients))
    alignments: Array = np.abs(np.sum(x * _unit(g), axis=1))
    return alignments


def hoyer_sparsity(gradients: Array) -> Array:
    """(sqrt(n) - ||g||_1 / ||g||_2) / (sqrt(n) - 1) of each sample, n entries: (N, ...) -> (N,).

    1 where one entry is not 0, 0 where all have the same size; it does not change with g's
    length. NaN where g is 0. Source: Hoyer, "Non-negative Matrix Factorization with Sparseness
    Constraints", JMLR 5, 2004. Raises ValueError for samples with fewer than two entries.
    """
    g = gradients.reshape(len(gradients), -1).astype(np.float64)
    root = math.sqrt(g.shape[1])
    if g.shape[1] < 2:
        raise UsageError(
            f"gradients has shape {gradients.shape}; allowed: (N, ...) with at least two entries "
            "in a sample"
        )
    sparsity: Array = (root - np.abs(_unit(g)).sum(axis=1)) / (root - 1)
    return sparsity


def _unit(g: Array) -> Array:
    """g / ||g||_2 of each row, NaN where it is 0; tiny gradients do not underflow."""
    largest = np.abs(g).max(axis=1, keepdims=True)
    scaled = np.divide(g, largest, out=np.full_like(g, np.nan), where=largest > 0)
    unit: Array = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit


@dataclass(frozen=True, eq=False)
class GradientMaps:
    """Samples x and the gradients g of their losses, both (N, ...), and the labels (N,).

    x is in raw units, g in the loss's unit per unit of x (nats for cross-entropy).
    """

    labels: Array
    images: Array
    gradients: Array
    about: ClassVar[str] = (
        "Of the loss's gradient g. alignment |<x, g>| / ||g||_2 (units of x) and cosine (0 to 1): "
        "higher is more like the image. sparsity (Hoyer, 0 to 1): 1 where g is a single pixel. "
        "size ||g||_1 (nats per unit of x): lower is flatter."
    )

    @property
    def alignment(self) -> Array:
        """|<x, g>| / ||g||_2, shape (N,), in units of x: see `alignment`."""
        return alignment(self.images, self.gradients)

    @property
    def cosine(self) -> Array:
        """|<x, g>| / (||x||_2 ||g||_2), shape (N,), in [0, 1]; NaN where x or g is 0.

        The alignment without its unit, so that bright images do not count for more.
        """
        x = self.images.reshape(len(self.images), -1).astype(np.float64)
        return alignment(_unit(x), self.gradients.reshape(x.shape))

    @property
    def sparsity(self) -> Array:
        """Hoyer's sparsity of g, shape (N,), in [0, 1]: see `hoyer_sparsity`."""
        return hoyer_sparsity(self.gradients)

    @property
    def size(self) -> Array:
        """||g||_1, shape (N,): the slope under changes of all entries at once."""
        flat = self.gradients.reshape(len(self.gradients), -1).astype(np.float64)
        size: Array = np.abs(flat).sum(axis=1)
        return size

    def summary(self) -> dict[str, float]:
        """Means over the samples whose gradient and image are not 0, and how many those are."""
        frame = self.to_frame()
        defined = frame[frame["cosine"].notna()]
        return {
            "samples": len(frame),
            "with a gradient": len(defined),
            **{f"mean {name}": float(defined[name].mean()) for name in list(frame)[2:]},
        }

    def to_frame(self) -> pandas.DataFrame:
        """One row for each sample, without the maps."""
        return frame_of(self, "alignment", "cosine", "sparsity", "size")


def gradient_maps(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    loss: LossLike = None,
    batch_size: int = 256,
) -> GradientMaps:
    """grad_x l(x) of each sample, model in eval mode, with its alignment and sparsity.

    The gradients of robust networks look like what they are shown, which is taken as a sign that
    they see as humans do; alignment and sparsity put numbers beside the picture. Where the loss
    is below about 1e-7, float32 has lost the true class's part of the gradient; the gradient of
    the winning logit, as Etmann et al. take it, is that of
    `loss=lambda logits, y: logits.amax(dim=1)`.

    Args:
        model: A module that maps (N, ...) to logits; or an ART `PyTorchClassifier`, whose own
            loss, preprocessing and `clip_values` are then used.
        x: Inputs, shape (N, ...), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows.
        loss: None (cross-entropy), a `torch.nn` loss, or a callable (logits, y) -> (N,).
        batch_size: Samples at a time.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
    """
    # Nothing here leaves x, so that a module needs no bounds; a classifier has its own.
    bounds: BoundsChoice = None if isinstance(model, nn.Module) else "auto"
    problem = make_problem(model, x, y, bounds=bounds, loss=loss, batch_size=batch_size)
    with problem.preserved():
        gradients = problem.gradient(problem.x, problem.y)
    return GradientMaps(
        labels=problem.labels.numpy(),
        images=problem.x.cpu().numpy(),
        gradients=gradients.cpu().numpy(),
    )
