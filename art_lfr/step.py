"""One optimizer step on the objective of a batch: clean loss and penalty."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from art_lfr.criterion import Criterion
from art_lfr.geometry import Box
from art_lfr.loss import objective_terms, search
from art_lfr.modes import protected_buffers
from art_lfr.penalties import LocalFlatness, LossView, Penalty
from art_lfr.randomness import PartGenerator, preserved_random_state
from art_lfr.settings import LFRSettings
from art_lfr.weight_perturbation import perturbed_weights

# (inputs, targets, generator) -> the inputs of the clean term
Attack: TypeAlias = Callable[[Tensor, Tensor, torch.Generator], Tensor]


class NonFiniteError(ArithmeticError):
    """A loss or gradient that is NaN or infinite; no weight has been changed by it."""


class StepResult(NamedTuple):
    """A batch's mean loss, clean loss, flatness and accuracy, and its predicted labels (N,)."""

    means: dict[str, float]
    predicted: Tensor


class _BatchPart(NamedTuple):
    """As much of a batch as goes through the model at once, and its share in the batch's mean."""

    view: LossView
    x: Tensor
    y: Tensor
    found: Any
    x_clean: Tensor | None
    share: float


@dataclass(frozen=True)
class Objective:
    """What a step descends: the model, its loss, its box, and what the clean term is taken on.

    Attributes:
        model: Maps raw inputs to logits.
        criterion: The loss, per sample.
        bounds_for: Gives the box of valid inputs for a batch.
        attack: Replaces the inputs of the clean term; the ball stays centred on the originals.
        penalty: What is added to the clean loss, with the weight lam.
    """

    model: nn.Module
    criterion: Criterion
    bounds_for: Callable[[Tensor], Box]
    attack: Attack | None = None
    penalty: Penalty = field(default_factory=LocalFlatness)

    def step(
        self,
        x: Tensor,
        y: Tensor,
        *,
        optimizer: torch.optim.Optimizer,
        settings: LFRSettings,
        generator: torch.Generator,
        max_grad_norm: float | None,
        weight_perturbation: float | None = None,
        max_physical_batch_size: int | None = None,
    ) -> StepResult:
        """Back-propagate the terms one after another, so that one graph is alive; then step.

        A batch larger than `max_physical_batch_size` is taken in parts, whose gradients add up.
        Raises NonFiniteError, before the optimizer steps, where a term or the gradient is not
        finite.
        """
        parts = list(self._parts(x, y, settings, generator, max_physical_batch_size or len(x)))
        passes = partial(self._back_propagate, parts, optimizer)
        with ExitStack() as stack:
            if weight_perturbation is not None:
                # The same masks as in the pass that counts, which alone moves the statistics.
                with preserved_random_state(x.device), protected_buffers(self.model):
                    passes()
                stack.enter_context(perturbed_weights(self.model, weight_perturbation))
            clean, flatness, outputs = passes()
        correct = self.criterion.correct(outputs, y)
        # Clipped at infinity, the gradient is left as it is and its norm is returned.
        limit = math.inf if max_grad_norm is None else max_grad_norm
        norm = float(nn.utils.clip_grad_norm_(parameters_of(optimizer), limit))
        if not math.isfinite(norm):
            raise NonFiniteError(f"the gradient's norm is {norm}")
        optimizer.step()
        return StepResult(
            {
                "loss": clean + settings.resolved_lam * flatness,
                "clean_loss": clean,
                "flatness": flatness,
                "train_accuracy": float(correct.double().mean()),
            },
            self.criterion.predicted(outputs),
        )

    def _parts(
        self,
        x: Tensor,
        y: Tensor,
        settings: LFRSettings,
        generator: torch.Generator,
        largest: int,
    ) -> Iterator[_BatchPart]:
        """The batch in parts of nearly equal size, each with what its penalty's search found."""
        count = -(-len(x) // largest)
        draws, first = generator, 0
        for own_x, own_y, share in zip(
            x.tensor_split(count), y.tensor_split(count), self._shares(y, count), strict=True
        ):
            if count > 1:
                rows = slice(first, first + len(own_x))
                draws, first = PartGenerator.of(generator, rows, len(x)), rows.stop
            attacked = None if self.attack is None else self.attack(own_x, own_y, draws)
            view = LossView(self.model, self.criterion, self.bounds_for(own_x), settings)
            found = search(view, self.penalty, own_x, own_y, draws)
            yield _BatchPart(view, own_x, own_y, found, attacked, share)
        generator.set_state(draws.get_state())

    def _shares(self, y: Tensor, count: int) -> list[float]:
        """What each part weighs in the mean over the batch, as the loss weighs its samples."""
        if count == 1:
            return [1.0]
        weights = self.criterion.sample_weights(y)
        if weights is None:
            weights = torch.ones(len(y))
        sums = torch.stack([part.double().sum() for part in weights.tensor_split(count)])
        shares: list[float] = (sums / sums.sum()).tolist()
        return shares

    def _back_propagate(
        self, parts: list[_BatchPart], optimizer: torch.optim.Optimizer
    ) -> tuple[float, float, Tensor]:
        """Fill the gradients, term by term; the clean loss, the penalty, and the logits."""
        self.model.zero_grad(set_to_none=True)  # parameters outside the optimizer too
        optimizer.zero_grad(set_to_none=True)
        clean, penalty, logits = 0.0, 0.0, []
        for part in parts:
            for term in objective_terms(
                part.view, self.penalty, part.x, part.y, part.found, x_clean=part.x_clean
            ):
                value = float(term.value.detach())
                if not math.isfinite(value):
                    raise NonFiniteError(f"the loss is {value}")
                scale = part.share
                if term.outputs is not None:
                    clean += scale * value
                    logits.append(term.outputs.detach())
                else:
                    scale *= term.weight
                    penalty += scale * value
                    scale *= part.view.settings.resolved_lam
                # A part of the penalty may be held: it counts, and pulls at nothing.
                if term.outputs is not None or term.value.requires_grad:
                    (scale * term.value).backward()  # type: ignore[no-untyped-call]
        return clean, penalty, torch.cat(logits)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
