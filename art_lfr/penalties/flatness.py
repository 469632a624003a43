"""The penalty of LFR: the local flatness of the loss, and its limit for eps -> 0.

Source of the penalty: Xu et al., ICIP 2020. Source of the finite difference: with s the dual
vector of g = grad l(x'), ||g||_q = <g, s>, and by the envelope theorem its gradient in the weights
is that of <g, s> with s held fixed. A central difference along s gives
<g, s> ~ (l(x' + h s) - l(x' - h s)) / (2 h), with first-order gradients only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from art_lfr.core.arguments import check_number
from art_lfr.core.flatness import LeastFlatPoint, find_least_flat_point, last_point
from art_lfr.core.geometry import Ball, dual_vector
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError
from art_lfr.penalties.base import LossView, Part, Penalty


class SearchResult(NamedTuple):
    """A point x' (N, ...), and grad l(x') where the search has taken it in full precision."""

    point: Tensor
    gradient: Tensor | None


@dataclass(frozen=True)
class LocalFlatness(Penalty):
    """LF(x) = max over the eps-ball of ||grad l||_q, at the point that K ascent steps find.

    Attributes:
        minus_weight: How much of the gradient of the minus term, -l(x' - h s) / (2 h), counts in
            the finite difference, in [0, 1]. 1: the gradient of the penalty. 0: the minus term is
            held: the value is the same, but training only lowers l(x' + h s) and never raises
            l(x' - h s), which is unbounded above. docs/what-the-gain-is.md has the experiment.
    """

    ascends: ClassVar[bool] = True

    minus_weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("minus_weight", self.minus_weight)
        if self.minus_weight > 1:
            raise UsageError(f"minus_weight is {self.minus_weight}; allowed: a number in [0, 1]")

    def let_in(self, part: float) -> LocalFlatness:
        """The penalty of which only `part` of the minus term's gradient counts."""
        return replace(self, minus_weight=part * self.minus_weight)

    def start(self, ball: Ball, x: Tensor, generator: torch.Generator) -> Tensor | None:
        """A point beside x."""
        return ball.start_point(x, generator)

    def search(self, view: LossView, x: Tensor, y: Tensor, start: Tensor | None) -> SearchResult:
        """The least flat point of the ball, in eval mode; from x itself where `start` is None.

        Where the penalty's network is another than that of eval mode, the ascent's last point:
        whether it is the best one would show in a gradient that `parts` could not use.
        """
        settings, narrow = view.settings, view.settings.autocast
        start = x if start is None else start
        context = torch.autocast(x.device.type, dtype=torch.bfloat16) if narrow else nullcontext()
        if narrow:
            settings = replace(settings, radius=_radius_in_bfloat16(settings, x))
        ascend: Callable[..., Tensor | LeastFlatPoint] = find_least_flat_point
        if view.differs and settings.steps:
            ascend = last_point
        with context:
            found = ascend(
                view.model, view.criterion, x, y, ball=view.ball, settings=settings, start=start
            )
        if isinstance(found, Tensor):
            return SearchResult(found, None)
        return SearchResult(found.point, None if narrow else found.gradient)

    def end(self, searched: Any) -> Tensor | None:
        """The least flat point."""
        point: Tensor = searched.point
        return point

    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """||grad l(x')||_q, or the two ends of the finite difference, x' held fixed."""
        p = view.settings.norm
        if view.settings.estimator == "exact":
            gradient = view.differentiable_gradient(searched.point, y)
            # The same value and weight-gradient as ||g||_q, and 0 where g = 0.
            yield Part(1.0, (gradient * dual_vector(gradient.detach(), p)).flatten(1).sum(dim=1))
            return
        # Where the penalty's network is another than the ascent's, the dual vector must be that of
        # its own gradient, or <g, s> would fall short of ||g||_q.
        gradient = searched.gradient
        if view.differs or gradient is None:
            gradient = view.gradient(searched.point, y)
        h = view.settings.radius
        shift = h * dual_vector(gradient, p)
        upper, lower = searched.point + shift, searched.point - shift
        yield Part(1 / (2 * h), view.losses(upper, y))
        with torch.no_grad() if self.minus_weight == 0 else nullcontext():
            values = view.losses(lower, y)
        if 0 < self.minus_weight < 1:
            values = torch.lerp(values.detach(), values, self.minus_weight)
        yield Part(-1 / (2 * h), values)


@dataclass(frozen=True)
class InputGradient(LocalFlatness):
    """||grad l(x)||_q at x itself: input-gradient regularization.

    Source: Drucker & LeCun 1992 (double back-propagation); Ross & Doshi-Velez, AAAI 2018. The
    finite difference is that of Finlay & Oberman, arXiv 1905.11468. LFR with an empty ball.
    """

    ascends: ClassVar[bool] = False

    def start(self, ball: Ball, x: Tensor, generator: torch.Generator) -> None:
        """None: nothing is random."""

    def search(self, view: LossView, x: Tensor, y: Tensor, start: Tensor | None) -> SearchResult:
        """x itself."""
        return SearchResult(x, None)


def _radius_in_bfloat16(settings: LFRSettings, x: Tensor) -> float:
    """h; for p = inf at least the rounding of the largest input.

    Below it x + h s can be x to a layer. In other norms h is no length of single coordinates.
    """
    if settings.norm != math.inf:
        return settings.radius
    rounding = torch.finfo(torch.bfloat16).eps * float(x.abs().max())
    return max(settings.radius, rounding)
