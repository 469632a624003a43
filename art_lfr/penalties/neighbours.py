"""Penalties of other papers on how fast the input gradient changes: CURE, LLR, GradAlign.

All differentiate a gradient, so they need layers with a second derivative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from art_lfr.core.arguments import check_number
from art_lfr.core.geometry import Ball, per_sample, sample_norm
from art_lfr.core.gradients import input_gradient
from art_lfr.core.modes import frozen, mode
from art_lfr.penalties.base import LossView, Part, Penalty


@dataclass(frozen=True)
class Cure(Penalty):
    """||grad l(x + h z) - grad l(x)||_2^2 with z = sign(grad l(x)) / ||sign(grad l(x))||_2.

    h is the settings' radius. Source: Moosavi-Dezfooli et al., "Robustness via curvature
    regularization, and vice versa", CVPR 2019.
    """

    narrow: ClassVar[bool] = False

    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """The squared change of the gradient along z, both gradients with a graph."""
        at_x = view.differentiable_gradient(x, y)
        direction = at_x.detach().sign()
        z = direction / per_sample(sample_norm(direction, 2).clamp_min(1.0), direction)
        shifted = view.differentiable_gradient(x + view.settings.radius * z, y)
        squared = (shifted - at_x).flatten(1).square().sum(dim=1)
        weights = view.criterion.sample_weights(y)
        if weights is not None:  # both gradients carry it, their square has it twice
            squared = torch.where(weights > 0, squared / weights, torch.zeros_like(squared))
        yield Part(1.0, squared)


@dataclass(frozen=True)
class LocalLinearity(Penalty):
    """LLR: max over the ball of |l(x+d) - l(x) - <d, grad l(x)>|, plus mu |<d, grad l(x)>|.

    d is the maximiser of the first term, found by K steps of projected ascent from a random point.
    Source: Qin et al., "Adversarial robustness through local linearization", NeurIPS 2019; their
    weights lambda and mu are lam and lam * mu here.

    Attributes:
        mu: Weight of the second term, >= 0; theirs for CIFAR-10 are lambda 4 and mu 3: 0.75.
    """

    narrow: ClassVar[bool] = False

    mu: float = 0.75

    def __post_init__(self) -> None:
        check_number("mu", self.mu)

    def start(self, ball: Ball, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random point of the ball."""
        return ball.random_point(x, generator)

    def search(self, view: LossView, x: Tensor, y: Tensor, start: Tensor | None) -> Tensor:
        """The point x + d where the loss is farthest from its linearisation, in eval mode."""
        ball, settings = view.ball, view.settings
        point = x if start is None else start
        with mode(view.model, training=False), frozen(view.model):
            slope = input_gradient(view.model, view.criterion, x, y)
            at_x = view.losses(x, y).detach()
            for _ in range(settings.steps):
                gap = view.losses(point, y).detach() - at_x - _inner(point - x, slope)
                gradient = input_gradient(view.model, view.criterion, point, y) - slope
                ascent = gradient * per_sample(gap.sign(), gradient)
                point = ball.ascend(point, ascent, x, settings.step_size)
        return point

    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """The gap and the linear term at the point found, with one graph through all three."""
        linear = _inner(searched - x, view.differentiable_gradient(x, y))
        gap = (view.losses(searched, y) - view.losses(x, y) - linear).abs()
        yield Part(1.0, gap + self.mu * linear.abs())


@dataclass(frozen=True)
class GradAlign(Penalty):
    """1 - cos(grad l(x), grad l(x + n)) with n drawn uniformly from the eps-ball.

    Source: Andriushchenko & Flammarion, "Understanding and improving fast adversarial training",
    NeurIPS 2020 (there n is uniform in the l-infinity ball).
    """

    narrow: ClassVar[bool] = False

    def start(self, ball: Ball, x: Tensor, generator: torch.Generator) -> Tensor:
        """x + n, where `search` stays."""
        return ball.random_point(x, generator)

    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """One minus the cosine, 0 where a gradient is 0."""
        at_x = view.differentiable_gradient(x, y).flatten(1)
        at_noise = view.differentiable_gradient(searched, y).flatten(1)
        defined = (at_x.detach().norm(dim=1) > 0) & (at_noise.detach().norm(dim=1) > 0)
        cosine = functional.cosine_similarity(at_x, at_noise, dim=1, eps=1e-30)
        turned = torch.where(defined, 1 - cosine, torch.zeros_like(cosine))
        yield Part(1.0, view.criterion.weighted(turned, y))


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """<a_i, b_i> of each sample, shape (N,)."""
    return (a * b).flatten(1).sum(dim=1)
