"""The LFR objective l + lam * penalty, for any PyTorch loop.

    lfr_loss(model, x, y, eps=0.3, lam=0.15).total.backward()

Source of the objective: Xu et al., ICIP 2020. Source of the finite-difference penalty: with s the
dual vector of g = grad l(x'), ||g||_q = <g, s>, and by the envelope theorem its gradient in theta
is that of <g, s> with s held fixed. A central difference along s gives
<g, s> ~ (l(x' + h s) - l(x' - h s)) / (2 h), with first-order gradients only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from art_lfr.arguments import (
    check_batch,
    check_inputs,
    check_labels,
    check_type,
    keywords_of,
    reject_unknown,
)
from art_lfr.criterion import Criterion, LossLike, logits_of
from art_lfr.flatness import (
    LeastFlatPoint,
    find_least_flat_point,
    input_gradient,
)
from art_lfr.geometry import Ball, Bounds, Box, dual_vector
from art_lfr.modes import batch_norm_mode, frozen, normalisation_layers, protected_buffers
from art_lfr.randomness import RandomState, preserved_random_state
from art_lfr.settings import LFRSettings


class LFRTerms(NamedTuple):
    """total = clean + lam * flatness, each a 0-dim tensor (a mean over the batch)."""

    total: Tensor
    clean: Tensor
    flatness: Tensor


class Term(NamedTuple):
    """One summand: weight * value of the clean loss, or of the penalty (without lam).

    `outputs` are the logits of the clean term, None in the others.
    """

    weight: float
    value: Tensor
    outputs: Tensor | None = None


def objective_terms(
    model: nn.Module,
    criterion: Criterion,
    x: Tensor,
    y: Tensor,
    *,
    box: Box,
    settings: LFRSettings,
    generator: torch.Generator | None,
    x_clean: Tensor | None = None,
) -> Iterator[Term]:
    """Yield the summands one after another: the clean loss, then those of the penalty.

    A caller that back-propagates each before asking for the next holds one graph at a time. The
    model must not change in between. `x_clean` replaces x in the clean term only.

    Random layers see the same masks in all passes of one call, and the global generators move on
    as by one forward pass. Buffers (running statistics) are updated by the clean forward alone.
    """
    least_flat: LeastFlatPoint | None = None
    if settings.resolved_lam > 0:
        ball = Ball(settings.eps, settings.p, box)
        with preserved_random_state(x.device):
            least_flat = find_least_flat_point(
                model,
                criterion,
                x,
                y,
                ball=ball,
                settings=settings,
                start=ball.start_point(x, generator),
            )
    before = RandomState.capture(x.device)
    outputs = logits_of(model(x if x_clean is None else x_clean))
    yield Term(1.0, criterion.mean(criterion.values(outputs, y), y), outputs)
    if least_flat is None:
        return
    after = RandomState.capture(x.device)
    # The penalty's network can differ from the ascent's (eval mode): by random masks, by the
    # statistics of the batch, or by running statistics that the clean forward has moved. Then the
    # dual vector must be that of its own gradient, or <g, s> would fall short of ||g||_q.
    differs = after.differs_from(before) or any(m.training for m in normalisation_layers(model))
    point, gradient = least_flat.point, least_flat.gradient
    if settings.estimator == "exact":
        with _penalty_pass(model, settings, before):
            term = _exact_penalty(model, criterion, point, y, settings)
        yield term
        return
    if differs:
        with _penalty_pass(model, settings, before), frozen(model):
            gradient = input_gradient(model, criterion, point, y)
    h = settings.resolved_radius
    shift = h * dual_vector(gradient, settings.p)
    for sign in (1.0, -1.0):
        with _penalty_pass(model, settings, before):
            values = criterion.values(logits_of(model(point + sign * shift)), y)
            mean = criterion.mean(values, y)
        yield Term(sign / (2 * h), mean)


@contextmanager
def _penalty_pass(model: nn.Module, settings: LFRSettings, masks: RandomState) -> Iterator[None]:
    """A forward pass of the penalty: the clean pass's masks, no change to buffers or generators."""
    with (
        preserved_random_state(masks.device),
        protected_buffers(model),
        batch_norm_mode(model, settings.batch_norm),
    ):
        masks.restore()
        yield


def _exact_penalty(
    model: nn.Module, criterion: Criterion, point: Tensor, y: Tensor, settings: LFRSettings
) -> Term:
    """||grad l(x')||_q with a graph through the gradient (double back-propagation)."""
    point = point.detach().requires_grad_(True)
    gradient = input_gradient(model, criterion, point, y, create_graph=True)
    # <g, s> with s held fixed: the same value and theta-gradient as ||g||_q, and 0 where g = 0.
    values = (gradient * dual_vector(gradient.detach(), settings.p)).flatten(1).sum(dim=1)
    return Term(1.0, criterion.mean(values, y))


class LFRLoss:
    """`lfr_loss` with its keywords fixed: `LFRLoss(eps=0.3)(model, x, y)`.

    Takes the keywords of `lfr_loss` and checks them once, when it is made. Without a `generator`
    it makes one, seeded with 0, whose start noise goes on from call to call.
    """

    def __init__(
        self,
        *,
        eps: float,
        lam: float | None = None,
        norm: float | str = math.inf,
        steps: int = 10,
        step_size: float | None = None,
        estimator: str = "finite-difference",
        radius: float | None = None,
        bounds: Bounds = (0.0, 1.0),
        batch_norm: str = "train",
        loss: LossLike = None,
        generator: torch.Generator | None = None,
        **unknown: Any,
    ) -> None:
        reject_unknown("LFRLoss()", unknown, keywords_of(lfr_loss))
        if generator is not None:
            check_type("generator", generator, torch.Generator, "a torch.Generator, or None")
        self.settings = LFRSettings(
            eps=eps,
            norm=norm,
            steps=steps,
            step_size=step_size,
            lam=lam,
            estimator=estimator,
            radius=radius,
            batch_norm=batch_norm,
        )
        self.bounds = bounds
        self.criterion = Criterion(loss)
        self.generator = generator or torch.Generator().manual_seed(0)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> LFRTerms:
        """The objective of one batch; see `lfr_loss`."""
        check_batch(model, x, y)
        check_inputs("x", x)
        box = Box.from_bounds(self.bounds, x)
        check_inputs("x", x, box)
        check_labels("y", y, len(x))
        clean, *penalty = objective_terms(
            model,
            self.criterion,
            x.detach(),
            y,
            box=box,
            settings=self.settings,
            generator=self.generator,
        )
        flatness = torch.zeros_like(clean.value)
        for term in penalty:
            flatness = flatness + term.weight * term.value
        total = clean.value + self.settings.resolved_lam * flatness
        return LFRTerms(total, clean.value, flatness)


def lfr_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    lam: float | None = None,
    norm: float | str = math.inf,
    steps: int = 10,
    step_size: float | None = None,
    estimator: str = "finite-difference",
    radius: float | None = None,
    bounds: Bounds = (0.0, 1.0),
    batch_norm: str = "train",
    loss: LossLike = None,
    generator: torch.Generator | None = None,
    **unknown: Any,
) -> LFRTerms:
    """The LFR objective of a batch: l(x) + lam * max over the eps-ball of ||grad l||_q.

    Call it with the model in train mode, then `.total.backward()`; scale the total to accumulate
    gradients over batches. The ascent runs in eval mode; all modes and `requires_grad` flags are
    restored. Running statistics are updated once, by the clean forward. Dropout and other random
    layers see the same masks in all passes of one call.

    Args:
        model: Maps (N, ...) to logits (or to an object with `.logits`).
        x: Inputs, shape (N, ...), floating, in raw units.
        y: Labels, shape (N,), or what `loss` takes.
        eps: Radius of the ball, >= 0, in raw units.
        lam: Weight of the penalty, >= 0. None: the default of the norm, a multiple of eps.
        norm: p of the ball: np.inf, 2 or 1. The gradient is measured in the dual norm q.
        steps: Ascent steps K, >= 0. With eps 0 and steps 0: input-gradient regularization.
        step_size: Length of a step. None: the default of the norm, a multiple of eps / steps.
        estimator: "finite-difference" or "exact" (double back-propagation).
        radius: Finite-difference radius h. None: the default of the norm, a multiple of eps.
        bounds: Valid inputs (low, high), numbers or per-feature arrays, or None.
        batch_norm: "eval": the penalty uses running statistics; "train": those of its batch.
        loss: None (cross-entropy), a `torch.nn` loss, or a callable (outputs, y) -> (N,).
        generator: Source of the start noise; None: one seeded with 0, for each call anew.

    Returns:
        (total, clean, flatness), 0-dim tensors; flatness is the penalty without lam, and 0 where
        lam is 0 (it is not computed).

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
        RuntimeError: Where "exact" meets a layer without a second derivative.
    """
    reject_unknown("lfr_loss()", unknown, keywords_of(lfr_loss))
    objective = LFRLoss(
        eps=eps,
        lam=lam,
        norm=norm,
        steps=steps,
        step_size=step_size,
        estimator=estimator,
        radius=radius,
        bounds=bounds,
        batch_norm=batch_norm,
        loss=loss,
        generator=generator,
    )
    return objective(model, x, y)
