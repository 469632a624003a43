"""One optimizer step on the objective of a batch: clean loss and penalty."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from art_lfr.randomness import preserved_random_state
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
    ) -> StepResult:
        """Back-propagate the terms one after another, so that one graph is alive; then step.

        Raises NonFiniteError, before the optimizer steps, where a term or the gradient is not
        finite.
        """
        x_clean = None if self.attack is None else self.attack(x, y, generator)
        view = LossView(self.model, self.criterion, self.bounds_for(x), settings)
        found = search(view, self.penalty, x, y, generator)
        passes = partial(self._back_propagate, view, x, y, found, x_clean, optimizer)
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

    def _back_propagate(
        self,
        view: LossView,
        x: Tensor,
        y: Tensor,
        found: Any,
        x_clean: Tensor | None,
        optimizer: torch.optim.Optimizer,
    ) -> tuple[float, float, Tensor]:
        """Fill the gradients, term by term; the clean loss, the penalty, and the logits."""
        self.model.zero_grad(set_to_none=True)  # parameters outside the optimizer too
        optimizer.zero_grad(set_to_none=True)
        clean, penalty, logits = math.nan, 0.0, torch.empty(0)
        for term in objective_terms(view, self.penalty, x, y, found, x_clean=x_clean):
            value = float(term.value.detach())
            if not math.isfinite(value):
                raise NonFiniteError(f"the loss is {value}")
            scale = 1.0
            if term.outputs is not None:
                clean, logits = value, term.outputs.detach()
            else:
                penalty += term.weight * value
                scale = view.settings.resolved_lam * term.weight
            # A part of the penalty may be held: it counts, and pulls at nothing.
            if term.outputs is not None or term.value.requires_grad:
                (scale * term.value).backward()  # type: ignore[no-untyped-call]
        return clean, penalty, logits


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
