"""Balls, dual norms, steepest directions and projections, for p in {inf, 2, 1}.

Tensors only. A batch has shape (N, ...) with any rank; everything is computed sample by sample
over the flattened trailing dimensions. The unit is that of the raw input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from art_lfr.core.randomness import normal_like, uniform_like
from art_lfr.errors import UsageError

Bounds: TypeAlias = (
    "tuple[float | Tensor | npt.NDArray[Any], float | Tensor | npt.NDArray[Any]] | None"
)

# An l1 step of a single coordinate is the exact steepest direction, and hopelessly slow on images:
# the mass is spread over this part of the coordinates (Tramer & Boneh 2019, "SLIDE", use 1 %).
L1_STEP_FRACTION = 0.01
# Published start noise: x + 0.001 * N(0, I) for a box of width 1.
START_NOISE = 0.001


def dual_norm(p: float) -> float:
    """Return the dual exponent q with 1/p + 1/q = 1: inf -> 1, 2 -> 2, 1 -> inf."""
    return {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}[p]


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, ..., 1) so that it broadcasts against `like` of shape (N, ...)."""
    return values.reshape(-1, *([1] * (like.dim() - 1)))


def sample_norm(v: Tensor, p: float) -> Tensor:
    """||v_i||_p of each sample: (N, ...) -> (N,). Half precision is accumulated in float32."""
    if v.dtype in (torch.float16, torch.bfloat16):
        v = v.float()
    flat = v.flatten(1)
    # torch.linalg.vector_norm takes several times as long for these two on a CPU.
    if p == math.inf:
        return flat.abs().amax(dim=1)
    if p == 1.0:
        return flat.abs().sum(dim=1)
    norm: Tensor = torch.linalg.vector_norm(flat, ord=p, dim=1)
    return norm


def dual_vector(g: Tensor, p: float) -> Tensor:
    """The dual vector s = argmax over ||s||_p <= 1 of <g, s>, for which <g, s> = ||g||_q.

    p = inf: sign(g); p = 2: g / ||g||_2; p = 1: the signed unit vector at the largest |g_i|.
    A zero gradient gives a zero vector. Shape (N, ...) -> (N, ...).
    """
    if p == math.inf:
        return g.sign()
    if p == 2.0:
        # Divided by the largest entry first: squares of tiny gradients would underflow.
        scaled = g / per_sample(_positive(sample_norm(g, math.inf).to(g.dtype)), g)
        return scaled / per_sample(_positive(sample_norm(scaled, 2.0).to(g.dtype)), g)
    flat = g.flatten(1)
    largest = flat.abs().argmax(dim=1, keepdim=True)
    s = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
    return s.view_as(g)


def steepest_direction(u: Tensor, p: float) -> Tensor:
    """The direction d, ||d||_p <= 1, in which a step ascends fastest along u.

    As `dual_vector`, except for p = 1, where the unit of mass is shared equally by the largest
    1 % of the coordinates (at least one): sign(u_i) / k on the k largest |u_i|.
    """
    if p != 1.0:
        return dual_vector(u, p)
    flat = u.flatten(1)
    k = max(1, math.ceil(L1_STEP_FRACTION * flat.shape[1]))
    largest = flat.abs().topk(k, dim=1).indices
    d = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
    mass = d.abs().sum(dim=1, keepdim=True)
    return (d / _positive(mass)).view_as(u)


def project_ball(v: Tensor, eps: float, p: float) -> Tensor:
    """Euclidean projection of each sample of v on {||v||_p <= eps}."""
    if p == math.inf:
        return v.clamp(-eps, eps)
    if p == 2.0:
        norm = sample_norm(v, 2.0).to(v.dtype)
        return v * per_sample((eps / _positive(norm)).clamp(max=1.0), v)
    flat = v.flatten(1)
    inside = flat.abs().sum(dim=1, keepdim=True) <= eps
    # Sort-based projection on the l1 ball (Duchi et al. 2008): soft-threshold at theta.
    ordered = flat.abs().sort(dim=1, descending=True).values
    rank = torch.arange(1, flat.shape[1] + 1, device=v.device, dtype=v.dtype)
    excess = ordered.cumsum(dim=1) - eps
    active = (ordered - excess / rank > 0).sum(dim=1, keepdim=True).clamp(min=1)
    theta = excess.gather(1, active - 1) / active
    shrunk = flat.sign() * (flat.abs() - theta).clamp(min=0)
    # Where v is long and eps short, the subtraction of theta leaves a rounding excess.
    shrunk = shrunk * (eps / _positive(shrunk.abs().sum(dim=1, keepdim=True))).clamp(max=1.0)
    return torch.where(inside, flat, shrunk).view_as(v)


@dataclass(frozen=True)
class Box:
    """The valid inputs: low <= x <= high, each a scalar tensor or one that broadcasts against x."""

    low: Tensor
    high: Tensor

    @classmethod
    def from_bounds(cls, bounds: Bounds, like: Tensor) -> Box:
        """Build the box from (low, high) as floats or per-feature arrays, or None for no box.

        Raises ValueError where the bounds are no pair, hold NaN, are not low < high everywhere,
        or do not broadcast against one sample of `like`, shape (N, ...).
        """
        if bounds is None:
            bounds = (-math.inf, math.inf)
        try:
            low, high = (
                torch.as_tensor(np.asarray(b) if not isinstance(b, Tensor) else b).to(
                    dtype=like.dtype, device=like.device
                )
                for b in bounds
            )
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"bounds is {bounds!r}; allowed: a pair (low, high) of numbers or arrays, or None"
            ) from error
        if not bool((low < high).all()):
            raise UsageError(f"bounds is {bounds!r}; allowed: low < high everywhere, without NaN")
        for bound in (low, high):
            try:
                bound.expand(like.shape[1:])
            except RuntimeError as error:
                raise UsageError(
                    f"bounds has shape {tuple(bound.shape)}; allowed: numbers, or arrays that "
                    f"broadcast to one sample, {tuple(like.shape[1:])}"
                ) from error
        return cls(low, high)

    def to(self, device: torch.device) -> Box:
        """The same box on another device."""
        return Box(self.low.to(device), self.high.to(device))

    def clip(self, x: Tensor) -> Tensor:
        """The nearest valid input, coordinate by coordinate."""
        return torch.minimum(torch.maximum(x, self.low), self.high)

    def contains(self, x: Tensor) -> bool:
        """Whether every coordinate of every sample is valid, up to the rounding of x's dtype."""
        finite = torch.cat([b.flatten() for b in (self.low, self.high)])
        finite = finite[finite.isfinite()]
        slack = 16 * torch.finfo(x.dtype).eps * (float(finite.abs().max()) if len(finite) else 0.0)
        return bool(((x >= self.low - slack) & (x <= self.high + slack)).all())

    def blocked(self, x: Tensor, direction: Tensor) -> Tensor:
        """Where x is on the edge of the box and `direction` leads out of it (a boolean mask)."""
        return ((x >= self.high) & (direction > 0)) | ((x <= self.low) & (direction < 0))


# Inputs of such a range are not scaled to [0, 1], as an eps below 1 would be.
WIDE = 100.0


def wrong_unit(eps: float, p: float, box: Box) -> str | None:
    """What to warn of where an l-inf ball is wider than all valid inputs, or None.

    Or where it is less than a step of 8-bit images, for inputs in [0, 255] and the like.
    """
    width = float((box.high - box.low).max())
    tiny = 0 < eps < width / 255 and width >= WIDE
    if p != math.inf or not math.isfinite(width) or (eps <= width and not tiny):
        return None
    size = "less than a 255th of" if tiny else "more than"
    return (
        f"eps is {eps:g}, {size} the whole range of the inputs, {float(box.low.min()):g} to "
        f"{float(box.high.max()):g}: is it in their units? 8/255 for images in [0, 1], 8 for "
        "images in [0, 255]."
    )


@dataclass(frozen=True)
class Ball:
    """The feasible set of the inner maximisation: ||x' - x||_p <= eps inside the valid box."""

    eps: float
    p: float
    box: Box

    def project(self, x_new: Tensor, x: Tensor) -> Tensor:
        """Bring x_new into the ball around x and into the box.

        First the Euclidean projection on the ball, then on the box. The result lies in both,
        because x itself is in the box: clipping moves every coordinate towards x's.
        """
        if self.p == math.inf:
            return self.box.clip(torch.minimum(torch.maximum(x_new, x - self.eps), x + self.eps))
        return self.box.clip(x + project_ball(x_new - x, self.eps, self.p))

    def ascend(self, point: Tensor, u: Tensor, x: Tensor, step_size: float) -> Tensor:
        """One step from `point` up u: project(point + step_size * steepest(u)).

        Coordinates that u pushes out of the box take no part in the step.
        """
        u = u.masked_fill(self.box.blocked(point, u), 0.0)
        return self.project(point + step_size * steepest_direction(u, self.p), x)

    def start_point(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """The start of the ascent: x + min(0.001 * box width, eps) * N(0, I), projected.

        The noise moves x off points where the gradient is degenerate. It scales with the box, so
        that inputs in [0, 255] start as inputs in [0, 1] do. Without a box its scale is eps / 100.
        """
        width = self.box.high - self.box.low
        unbounded = torch.full_like(width, self.eps / 100)
        scale = torch.where(width.isfinite(), START_NOISE * width, unbounded).clamp(max=self.eps)
        return self.project(x + (scale * normal_like(x, generator)).to(x.dtype), x)

    def random_point(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """A point drawn uniformly from the ball around x, then clipped to the box."""
        if self.p == math.inf:
            offset = 2 * uniform_like(x, generator) - 1
            return self.project(x + (self.eps * offset).to(x.dtype), x)
        if self.p == 2.0:
            direction = normal_like(x, generator)
        else:
            # Laplace coordinates, normalised in l1, are uniform on the l1 sphere.
            u = uniform_like(x, generator) - 0.5
            direction = -u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.5 - 1e-7))
        unit = direction / per_sample(_positive(sample_norm(direction, self.p)), x)
        radius = uniform_like(x.new_empty(len(x)), generator) ** (1.0 / x[0].numel())
        return self.project(x + (self.eps * per_sample(radius, x) * unit).to(x.dtype), x)


def _positive(norm: Tensor) -> Tensor:
    """Replace zeros by ones, so that a zero vector divided by its norm stays zero."""
    return torch.where(norm == 0, torch.ones_like(norm), norm)
