"""Variants of the LFR penalty, to find out what its gain is made of; see docs/what-the-gain-is.md.

They are no options of the package: each differs from `LocalFlatness` in one thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from art_lfr.core.criterion import logits_of
from art_lfr.core.flatness import LeastFlatPoint, find_least_flat_point
from art_lfr.core.geometry import Ball, dual_vector
from art_lfr.core.gradients import input_gradient
from art_lfr.core.pgd import projected_gradient_descent
from art_lfr.penalties import InputGradient, LocalFlatness, LossView, Part
from art_lfr.penalties.flatness import SearchResult


@dataclass(frozen=True)
class Variant(LocalFlatness):
    """LFR with one thing changed.

    Attributes:
        inner: Estimator of the ascent; None: as the settings say.
        outer: Estimator of the penalty; None: as the settings say.
        ends: Where x' + h s and x' - h s are projected: "free", "box", or "ball" (and box).
        sides: "both": (l(x'+hs) - l(x'-hs)) / 2h; "plus": (l(x'+hs) - l(x')) / h;
            "only plus": l(x'+hs) / 2h, the penalty without what is subtracted; "half minus":
            (l(x'+hs) - l(x'-hs) / 2) / 2h.
        clamp: Negative values of the penalty count as 0.
        random_start: The ascent starts at a random point of the ball.
        ascend: "flatness", or "loss": x' is the example of PGD, as in adversarial training.
    """

    ascends: ClassVar[bool] = False

    inner: str | None = None
    outer: str | None = None
    ends: str = "free"
    sides: str = "both"
    clamp: bool = False
    random_start: bool = False
    ascend: str = "flatness"

    def start(self, ball: Ball, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random point of the ball for PGD and where it is the variant, else a point beside x."""
        random = self.random_start or self.ascend == "loss"
        return ball.random_point(x, generator) if random else ball.start_point(x, generator)

    def search(
        self, view: LossView, x: Tensor, y: Tensor, start: Tensor | None
    ) -> tuple[Tensor, LeastFlatPoint | SearchResult]:
        """x, and the least flat point by this variant's ascent."""
        settings = view.settings
        start = x if start is None else start
        if self.inner is not None:
            settings = replace(settings, estimator=self.inner)
        if self.ascend == "loss":
            point = projected_gradient_descent(
                view.model,
                view.criterion,
                x,
                y,
                ball=view.ball,
                steps=settings.steps,
                step_size=settings.step_size,
                start=start,
            )
            return x, InputGradient().search(view, point, y, None)
        return x, find_least_flat_point(
            view.model, view.criterion, x, y, ball=view.ball, settings=settings, start=start
        )

    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """The penalty by this variant's difference."""
        x, least_flat = searched
        if self.outer is not None:
            view = replace(view, settings=replace(view.settings, estimator=self.outer))
        if view.settings.estimator == "exact":
            yield from super().parts(view, x, y, least_flat)
            return
        point, h = least_flat.point, view.settings.radius
        gradient = least_flat.gradient
        if view.differs or gradient is None:
            gradient = view.gradient(point, y)
        shift = h * dual_vector(gradient, view.settings.norm)
        upper = view.losses(self._end(view, point + shift, x), y)
        if self.sides == "only plus":
            yield Part(1 / (2 * h), upper)
            return
        lower_end = point if self.sides == "plus" else self._end(view, point - shift, x)
        lower = view.losses(lower_end, y)
        width = h if self.sides == "plus" else 2 * h
        difference = upper - (0.5 * lower if self.sides == "half minus" else lower)
        if self.clamp:
            difference = difference.clamp_min(0.0)
        yield Part(1 / width, difference)

    def _end(self, view: LossView, end: Tensor, x: Tensor) -> Tensor:
        if self.ends == "box":
            return view.box.clip(end)
        return view.ball.project(end, x) if self.ends == "ball" else end


@dataclass(frozen=True)
class Updating(LocalFlatness):
    """LFR whose penalty passes move the running statistics of BatchNorm, as a second forward does
    that nobody guards.
    """

    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """The same values, from passes that are no different from the clean one."""
        p, h = view.settings.norm, view.settings.radius
        point = searched.point.detach().requires_grad_(True)
        exact = view.settings.estimator == "exact"
        gradient = input_gradient(view.model, view.criterion, point, y, create_graph=exact)
        dual = dual_vector(gradient.detach(), p)
        if exact:
            yield Part(1.0, (gradient * dual).flatten(1).sum(dim=1))
            return
        for sign in (1.0, -1.0):
            end = point.detach() + sign * h * dual
            yield Part(sign / (2 * h), view.criterion.values(logits_of(view.model(end)), y))


UPDATING = Updating()
EXACT_INNER = Variant(inner="exact", outer="finite-difference")
EXACT_OUTER = Variant(inner="finite-difference", outer="exact")
IN_BOX = Variant(ends="box")
IN_BALL = Variant(ends="ball")
CLAMPED = Variant(clamp=True)
ONE_SIDED = Variant(sides="plus")
ONLY_PLUS = Variant(sides="only plus")
RANDOM_START = Variant(random_start=True)
BALL_ONLY_PLUS = Variant(ends="ball", sides="only plus")
BOX_ONLY_PLUS = Variant(ends="box", sides="only plus")
HALF_MINUS = Variant(sides="half minus")
PGD = Variant(ascend="loss")
PGD_BOX_ONLY_PLUS = Variant(ascend="loss", ends="box", sides="only plus")
PGD_ONLY_PLUS = Variant(ascend="loss", sides="only plus")
PGD_BALL_ONLY_PLUS = Variant(ascend="loss", ends="ball", sides="only plus")
