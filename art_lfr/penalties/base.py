"""What a penalty is: values per sample from a model, x and y, and the passes they are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion, LossLike, logits_of
from art_lfr.core.geometry import Ball, Bounds, Box
from art_lfr.core.gradients import input_gradient
from art_lfr.core.modes import (
    batch_norm_mode,
    frozen,
    normalisation_layers,
    protected_buffers,
)
from art_lfr.core.randomness import RandomState, preserved_random_state
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.storage.description import public


class Part(NamedTuple):
    """One summand of a penalty: weight * values, with values of shape (N,)."""

    weight: float
    values: Tensor


@dataclass(frozen=True)
class LossView:
    """The loss of a network around a batch, as a penalty may look at it.

    Attributes:
        model: Maps raw inputs to logits.
        criterion: The loss, per sample.
        box: The valid inputs of the batch.
        settings: eps, norm, steps, step size, radius h, estimator and BatchNorm mode.
        masks: The random state at which the clean pass drew its masks; every pass below draws the
            same ones. None: each pass draws its own.
        differs: Whether the clean pass saw another network than a search in eval mode does: one
            with random masks, with statistics of the batch, or with other preprocessing.
        statistics: The layers with running statistics that the clean pass moved.
        clean_logits: Those of the clean pass at x, with their graph, for a penalty that is `joint`.
    """

    model: nn.Module
    criterion: Criterion
    box: Box
    settings: LFRSettings
    masks: RandomState | None = None
    differs: bool = False
    statistics: Sequence[nn.Module] = ()
    clean_logits: Tensor | None = None

    @property
    def ball(self) -> Ball:
        """The eps-ball of the settings inside the box."""
        return Ball(self.settings.eps, self.settings.norm, self.box)

    def logits(self, x: Tensor) -> Tensor:
        """The logits, shape (N, classes), with a graph in the weights."""
        with self._penalty_pass(x.device):
            return logits_of(self.model(x))

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Per-sample losses, shape (N,), with a graph in the weights."""
        return self.criterion.values(self.logits(x), y)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """grad_x of each sample's loss, shape of x, without a graph."""
        with self._penalty_pass(x.device), frozen(self.model):
            return input_gradient(self.model, self.criterion, x, y)

    def differentiable_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """grad_x of each sample's loss with a graph in the weights (double back-propagation).

        Raises RuntimeError where a layer has no second derivative.
        """
        with self._penalty_pass(x.device):
            x = x.detach().requires_grad_(True)
            return input_gradient(self.model, self.criterion, x, y, create_graph=True)

    @contextmanager
    def _penalty_pass(self, device: torch.device) -> Iterator[None]:
        """The clean pass's masks and mode, no change to buffers or generators."""
        with (
            preserved_random_state(device),
            protected_buffers(self.model),
            batch_norm_mode(self.statistics, self.settings.batch_norm),
        ):
            if self.masks is not None:
                self.masks.restore()
            yield


class Penalty(ABC):
    """A penalty on the loss around each sample; training descends l(x) + lam * penalty.

    A subclass gives `parts`, which yields a `Part` for each summand from the passes of a
    `LossView`; `start`, where it needs random numbers (`Ball.start_point`, `Ball.random_point`);
    and `search`, where it has to look for a point first. Values need a graph in the weights, or
    they pull at nothing. A resumed run knows it by its code and all it holds. `lam` has no default.

    Attributes:
        ascends: Whether `search` is an ascent from `start` that heeds `settings.autocast`, and
            `end` says where it has ended. Training refuses `autocast` and `warm_start` where it
            is not.
        narrow: Whether it is itself, up to a few per cent, where layers run in bfloat16 or float16;
            training refuses `precision` where it is not.
        weighted: Whether `lam` weighs it. Where not, lam is not given, and counts as 1.
        joint: Whether its values use `LossView.clean_logits`: the clean pass is then
            back-propagated together with the first summand, and both graphs are alive at once.
    """

    ascends: ClassVar[bool] = False
    narrow: ClassVar[bool] = True
    weighted: ClassVar[bool] = True
    joint: ClassVar[bool] = False

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r:.60}" for name, value in public(self).items())
        return f"{type(self).__qualname__}({settings})"

    def let_in(self, part: float) -> Penalty:
        """The penalty with `part`, in [0, 1], of what training lets in last; see `held_epochs`."""
        return self

    def start(self, ball: Ball, x: Tensor, generator: torch.Generator) -> Tensor | None:
        """Where the search starts, shape of x: all that is random in a penalty is drawn here.

        Called once for a whole batch, of which the search may see one part after another.
        """
        return None

    def search(self, view: LossView, x: Tensor, y: Tensor, start: Tensor | None) -> Any:
        """What `parts` needs that is constant in the weights, such as points of the ball.

        Called before the clean pass, with what `start` gave for these samples.
        """
        return start

    def settled(self, settings: LFRSettings) -> LFRSettings:
        """The settings as they count with this penalty."""
        return settings if self.weighted else replace(settings, lam=1.0)

    def clean_inputs(self, x: Tensor, searched: Any) -> Tensor:
        """Where the clean loss is taken, shape of x: at x itself."""
        return x

    def end(self, searched: Any) -> Tensor | None:
        """The points (N, ...) of what `search` found, where that of the next epoch may start."""
        return None

    @abstractmethod
    def parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """Yield the summands; a caller may back-propagate each before it asks for the next.

        `searched` is what `search` returned.
        """

    def values(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        settings: LFRSettings,
        bounds: Bounds = (0.0, 1.0),
        loss: LossLike = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The penalty of each sample, shape (N,), with a graph in the weights, without lam.

        The model is used in the mode in which it is; random layers draw the same masks in all
        passes. `generator` None: one seeded with 0.
        """
        generator = generator or torch.Generator().manual_seed(0)
        view = LossView(model, Criterion(loss), Box.from_bounds(bounds, x), settings)
        searched = self.search(view, x, y, self.start(view.ball, x, generator))
        view = replace(
            view,
            masks=RandomState.capture(x.device),
            differs=True,
            statistics=normalisation_layers(model),
        )
        values = x.new_zeros(len(x))
        for weight, summand in self.checked_parts(view, x, y, searched):
            values = values + weight * summand
        return values

    def checked_parts(self, view: LossView, x: Tensor, y: Tensor, searched: Any) -> Iterator[Part]:
        """`parts`, each with a weight and a value for each sample.

        Raises TypeError or ValueError, naming the penalty, for anything else, and at the end where
        no part has a graph in the weights, although the clean loss could have: such a penalty
        would be without effect.
        """
        who, pulls, count = f"penalty {type(self).__name__}", False, 0
        for part in self.parts(view, x, y, searched):
            if not (
                isinstance(part, tuple)
                and len(part) == 2
                and isinstance(part[0], Real)
                and isinstance(part[1], Tensor)
            ):
                raise WrongTypeError(
                    f"{who} yields a {type(part).__name__} as a part; allowed: "
                    "Part(weight, values), a number and a tensor of shape (N,)"
                )
            if part[1].shape != (len(x),):
                raise UsageError(
                    f"{who} gives values of shape {tuple(part[1].shape)} for {len(x)} samples; "
                    "allowed: one for each, shape (N,)"
                )
            pulls, count = pulls or part[1].requires_grad, count + 1
            yield Part(*part)
        trainable = torch.is_grad_enabled() and any(
            parameter.requires_grad for parameter in view.model.parameters()
        )
        if count and trainable and not pulls:
            raise UsageError(
                f"{who} gives values without a gradient in the weights, so that it would train "
                "nothing; allowed: values with a graph (no detach(), no no_grad)"
            )
