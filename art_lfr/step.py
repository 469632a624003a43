"""One optimizer step on the LFR objective of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from art_lfr.criterion import Criterion
from art_lfr.geometry import Box
from art_lfr.loss import objective_terms
from art_lfr.settings import LFRSettings

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
    """

    model: nn.Module
    criterion: Criterion
    bounds_for: Callable[[Tensor], Box]
    attack: Attack | None = None

    def step(
        self,
        x: Tensor,
        y: Tensor,
        *,
        optimizer: torch.optim.Optimizer,
        settings: LFRSettings,
        generator: torch.Generator,
        max_grad_norm: float | None,
    ) -> StepResult:
        """Back-propagate the terms one after another, so that one graph is alive; then step.

        Raises NonFiniteError, before the optimizer steps, where a term or the gradient is not
        finite.
        """
        x_clean = None if self.attack is None else self.attack(x, y, generator)
        self.model.zero_grad(set_to_none=True)  # parameters outside the optimizer too
        optimizer.zero_grad(set_to_none=True)
        clean, flatness = math.nan, 0.0
        predicted = correct = torch.empty(0)
        for term in objective_terms(
            self.model,
            self.criterion,
            x,
            y,
            box=self.bounds_for(x),
            settings=settings,
            generator=generator,
            x_clean=x_clean,
        ):
            value = float(term.value.detach())
            if not math.isfinite(value):
                raise NonFiniteError(f"the loss is {value}")
            if term.outputs is not None:
                clean, outputs = value, term.outputs.detach()
                predicted = self.criterion.predicted(outputs)
                correct = self.criterion.correct(outputs, y)
                term.value.backward()  # type: ignore[no-untyped-call]
            else:
                flatness += term.weight * value
                scale = settings.resolved_lam * term.weight
                (scale * term.value).backward()  # type: ignore[no-untyped-call]
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
            predicted,
        )


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
