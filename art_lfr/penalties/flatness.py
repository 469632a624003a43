"""The penalty of LFR: the local flatness of the loss, and its limit for eps -> 0.

Source of the penalty: Xu et al., ICIP 2020. Source of the finite difference: with s the dual
vector of g = grad l(x'), ||g||_q = <g, s>, and by the envelope theorem its gradient in the weights
is that of <g, s> with s held fixed. A central difference along s gives
<g, s> ~ (l(x' + h s) - l(x' - h s)) / (2 h), with first-order gradients only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from art_lfr.flatness import LeastFlatPoint, find_least_flat_point, input_gradient
from art_lfr.geometry import dual_norm, dual_vector, sample_norm
from art_lfr.modes import frozen, mode
from art_lfr.penalties.base import LossView, Part, Penalty


@dataclass(frozen=True)
class LocalFlatness(Penalty):
    """LF(x) = max over the eps-ball of ||grad l||_q, at the point that K ascent steps find."""

    def search(
        self, view: LossView, x: Tensor, y: Tensor, generator: torch.Generator | None
    ) -> LeastFlatPoint:
        """The least flat point of the ball, in eval mode."""
        return find_least_flat_point(
            view.model,
            view.criterion,
            x,
            y,
            ball=view.ball,
            settings=view.settings,
            start=view.ball.start_point(x, generator),
        )

    def parts(self, view: LossView, x: Tensor, y: Tensor, found: Any) -> Iterator[Part]:
        """||grad l(x')||_q, or the two ends of the finite difference, x' held fixed."""
        p = view.settings.p
        if view.settings.estimator == "exact":
            gradient = view.differentiable_gradient(found.point, y)
            # The same value and weight-gradient as ||g||_q, and 0 where g = 0.
            yield Part(1.0, (gradient * dual_vector(gradient.detach(), p)).flatten(1).sum(dim=1))
            return
        # Where the penalty's network is another than the ascent's, the dual vector must be that of
        # its own gradient, or <g, s> would fall short of ||g||_q.
        gradient = view.gradient(found.point, y) if view.differs else found.gradient
        h = view.settings.resolved_radius
        shift = h * dual_vector(gradient, p)
        for sign in (1.0, -1.0):
            yield Part(sign / (2 * h), view.losses(found.point + sign * shift, y))


@dataclass(frozen=True)
class InputGradient(LocalFlatness):
    """||grad l(x)||_q at x itself: input-gradient regularization.

    Source: Drucker & LeCun 1992 (double back-propagation); Ross & Doshi-Velez, AAAI 2018. The
    finite difference is that of Finlay & Oberman, arXiv 1905.11468. LFR with an empty ball.
    """

    def search(
        self, view: LossView, x: Tensor, y: Tensor, generator: torch.Generator | None
    ) -> LeastFlatPoint:
        """x and its gradient, in eval mode."""
        with mode(view.model, training=False), frozen(view.model):
            gradient = input_gradient(view.model, view.criterion, x, y)
        return LeastFlatPoint(x, sample_norm(gradient, dual_norm(view.settings.p)), gradient)
