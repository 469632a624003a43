"""Adversarial training and TRADES, as penalties: what they find, and what they make of it.

With the search of an adversarial example x' in the place of LFR's ascent, both have all that the
training loop has: warm-up, warm starts, clip, averaging, resume.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.geometry import Ball
from art_lfr.core.modes import mode
from art_lfr.core.pgd import projected_gradient_descent
from art_lfr.core.precision import NarrowModel
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError
from art_lfr.penalties.base import LossView, Part, Penalty


@dataclass(frozen=True)
class AdversarialTraining(Penalty):
    """l(x') in the place of l(x): x' is what K steps of PGD find in the eps-ball.

    No penalty in fact: there is no lam. Source: Madry et al., "Towards deep learning models
    resistant to adversarial attacks", ICLR 2018.
    """

    ascends: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def settled(self, settings: LFRSettings) -> LFRSettings:
        """Without a weight; ValueError for eps 0, where this is training without a defence."""
        _check_ball(settings, "adversarial-training")
        return super().settled(settings)

    def start(self, ball: Ball, x: Tensor, generator: torch.Generator) -> Tensor | None:
        """A random point of the ball."""
        return ball.random_point(x, generator)

    def search(self, view: LossView, x: Tensor, y: Tensor, start: Tensor | None) -> Tensor:
        """x', in eval mode."""
        return _find(view, view.criterion, x, y, start)

    def end(self, searched: Any) -> Tensor | None:
        """x'."""
        point: Tensor = searched
        return point

    def clean_inputs(self, x: Tensor, searched: Any) -> Tensor:
        """x'."""
        point: Tensor = searched
        return point

    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """Nothing."""
        return iter(())


@dataclass(frozen=True)
class Trades(Penalty):
    """KL(f(x) || f(x')): x' is where K ascent steps find it largest, from beside x; lam is beta.

    f are the probabilities; the gradient goes through both. The search is always in the network's
    own type: beside x the divergence is smaller than the rounding of a narrow one. Source: Zhang et
    al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019, where beta
    is 6.
    """

    ascends: ClassVar[bool] = True
    joint: ClassVar[bool] = True

    def settled(self, settings: LFRSettings) -> LFRSettings:
        """As they are; ValueError for eps 0, where the divergence is 0."""
        _check_ball(settings, "trades")
        return super().settled(settings)

    def start(self, ball: Ball, x: Tensor, generator: torch.Generator) -> Tensor | None:
        """A point beside x: at x itself the divergence has no slope."""
        return ball.start_point(x, generator)

    def search(self, view: LossView, x: Tensor, y: Tensor, start: Tensor | None) -> Tensor:
        """x', in eval mode."""
        model = view.model.model if isinstance(view.model, NarrowModel) else view.model
        view = replace(view, model=model, settings=replace(view.settings, autocast=False))
        with mode(view.model, training=False), torch.no_grad():
            clean = logits_of(view.model(x.clone()))
        if clean.dim() != 2 or clean.shape[1] < 2 or view.criterion.of_entries:
            raise UsageError(
                f"penalty is 'trades', which compares probabilities of classes, with outputs of "
                f"shape {tuple(clean.shape)} and {view.criterion.name}; allowed: (N, classes), at "
                "least two, and a loss of classes such as CrossEntropyLoss"
            )
        return _find(view, Criterion(_divergence_from), x, clean, start)

    def end(self, searched: Any) -> Tensor | None:
        """x'."""
        point: Tensor = searched
        return point

    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """The divergence, with a graph through the clean pass too."""
        clean = view.clean_logits if view.clean_logits is not None else view.logits(x)
        divergence = _divergence_from(view.logits(searched), clean)
        yield Part(1.0, view.criterion.weighted(divergence, y))


def _check_ball(settings: LFRSettings, penalty: str) -> None:
    if settings.eps == 0:
        raise UsageError(f"eps is 0 with penalty {penalty!r}; allowed: a number > 0")


def _divergence_from(outputs: Tensor, clean: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(outputs)) of each sample, shape (N,).

    From logits: a probability that is rounded to 0 has no logarithm, and its gradient would be NaN.
    """
    logs, expected = outputs.log_softmax(dim=1), clean.log_softmax(dim=1)
    return (expected.exp() * (expected - logs)).sum(dim=1)


def _find(
    view: LossView, criterion: Criterion, x: Tensor, y: Tensor, start: Tensor | None
) -> Tensor:
    """K steps of PGD on a criterion."""
    settings = view.settings
    narrow = torch.autocast(x.device.type, dtype=torch.bfloat16)
    with narrow if settings.autocast else nullcontext():
        return projected_gradient_descent(
            view.model,
            criterion,
            x,
            y,
            ball=view.ball,
            steps=settings.steps,
            step_size=settings.step_size,
            start=x if start is None else start,
        )
