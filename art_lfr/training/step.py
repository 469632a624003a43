"""One optimizer step on the objective of a batch: clean loss and penalty."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Box, per_sample
from art_lfr.core.modes import ModeComparison, parameters_of, protected_buffers
from art_lfr.core.processes import Processes
from art_lfr.core.randomness import preserved_random_state
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError
from art_lfr.loss import objective_terms, search, start_of
from art_lfr.penalties import LocalFlatness, LossView, Penalty
from art_lfr.training.batches import parts_of
from art_lfr.training.weight_perturbation import perturbed_weights

# (samples of a batch, generator) -> what replaces the inputs of the clean term in a part of the
# batch: (inputs, targets, rows of the batch) -> inputs
Attack: TypeAlias = Callable[[int, torch.Generator], Callable[[Tensor, Tensor, slice], Tensor]]


class NonFiniteError(ArithmeticError):
    """A loss or gradient that is NaN or infinite; no weight has been changed by it."""


class OptimizerError(UsageError):
    """What an optimizer's step has raised; it may have changed some weights."""


class StepResult(NamedTuple):
    """A batch's mean loss, clean loss, flatness and accuracy, and its gradient's norm unclipped.

    And the predicted labels and the targets of the rows that this process had; and where the
    penalty's search has ended, the shape of the batch, for all rows of all processes (NaN where it
    has not, None unless ends were given).
    """

    means: dict[str, float]
    predicted: Tensor
    targets: Tensor
    ends: Tensor | None


class _BatchPart(NamedTuple):
    """As much of a batch as goes through the model at once, and its share in the batch's mean."""

    view: LossView
    x: Tensor
    y: Tensor
    searched: Any
    x_clean: Tensor | None
    share: float
    rows: slice


@dataclass(frozen=True)
class Objective:
    """What a step descends: the model, its loss, its box, and what the clean term is taken on.

    Attributes:
        model: Maps raw inputs to logits.
        criterion: The loss, per sample.
        bounds_for: Gives the box of valid inputs for a batch.
        attack: Replaces the inputs of the clean term; the ball stays centred on the originals.
        penalty: What is added to the clean loss, with the weight lam.
        processes: Those that train the model together.
        comparison: Remembers whether the model depends on its mode.
    """

    model: nn.Module
    criterion: Criterion
    bounds_for: Callable[[Tensor], Box]
    attack: Attack | None = None
    penalty: Penalty = field(default_factory=LocalFlatness)
    processes: Processes = field(default_factory=Processes)
    comparison: ModeComparison = field(default_factory=ModeComparison)

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
        ends: Tensor | None = None,
        scaler: Any = None,
    ) -> StepResult | None:
        """Back-propagate the terms one after another, so that one graph is alive; then step.

        A batch larger than `max_physical_batch_size` is taken in parts, whose gradients add up.
        `ends`, the shape of x: where the search of the epoch before has ended and this one starts,
        NaN where it has no point.
        `scaler`: torch's `GradScaler`, for a `NarrowModel` in float16; None is returned for a step
        that is left out because it has overflowed.
        Raises NonFiniteError, before the optimizer steps, where a term or the gradient is not
        finite, and OptimizerError where the optimizer's own step raises.
        """
        buffers = []
        if scaler is not None:
            self.model.scale = scaler.get_scale()
            buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        largest = max_physical_batch_size or len(x)
        parts = list(self._parts(x, y, settings, generator, largest, ends))
        passes = partial(self._back_propagate, parts, optimizer)
        with ExitStack() as stack:
            if weight_perturbation is not None:
                # The same masks as in the pass that counts, which alone moves the statistics.
                with preserved_random_state(x.device), protected_buffers(self.model):
                    passes()
                stack.enter_context(perturbed_weights(self.model, weight_perturbation))
            try:
                clean, flatness, outputs = passes()
            except NonFiniteError:
                if scaler is None or scaler.get_scale() <= 1:
                    raise
                scaler.update(scaler.get_scale() * scaler.get_backoff_factor())
                _put_back(buffers)
                return None
        self._share_statistics(sum(len(part.x) for part in parts) / len(x))
        # A process can be left without rows of a small last batch.
        targets = torch.cat([part.y for part in parts]) if parts else y[:0]
        correct = self.criterion.correct(outputs, targets).sum()
        # Clipped at infinity, the gradient is left as it is and its norm is returned.
        limit = math.inf if max_grad_norm is None else max_grad_norm
        if scaler is not None:
            scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(parameters_of(optimizer), limit))
        if not math.isfinite(norm) and (scaler is None or scaler.get_scale() <= 1):
            raise NonFiniteError(f"the gradient's norm is {norm}")
        try:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)  # which leaves out what is not finite
                scaler.update()
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # whatever an optimizer raises, an assertion of SAM's too
            raise OptimizerError(_refusal(optimizer, error)) from error
        if not math.isfinite(norm):
            _put_back(buffers)
            return None
        return StepResult(
            {
                "loss": clean + settings.lam * flatness,
                "clean_loss": clean,
                "flatness": flatness,
                "train_accuracy": float(self.processes.add_up([correct])[0]) / len(x),
                "gradient_norm": norm,
            },
            self.criterion.predicted(outputs),
            targets,
            None if ends is None else self._ends(parts, x),
        )

    def _parts(
        self,
        x: Tensor,
        y: Tensor,
        settings: LFRSettings,
        generator: torch.Generator,
        largest: int,
        ends: Tensor | None,
    ) -> Iterator[_BatchPart]:
        """This process's parts of the batch, with what the penalty's search found for each.

        All that is random is drawn for the whole batch, so that a sample's noise depends neither
        on the parts nor on the processes.
        """
        view = LossView(
            self.model,
            self.criterion,
            self.bounds_for(x),
            settings,
            differs=self.comparison.differs,  # as the batch before has shown
        )
        attack = None if self.attack is None else self.attack(len(x), generator)
        start = start_of(view, self.penalty, x, generator, ends)
        parts = parts_of(len(x), largest, self.processes.size)
        shares = self._shares(y, parts)
        for index in self.processes.share_of(len(parts)):
            rows = parts[index]
            # Of ignored labels alone a mean is 0 / 0, and weighs nothing.
            if shares[index] == 0:
                continue
            x_part, y_part = x[rows], y[rows]
            attacked = None if attack is None else attack(x_part, y_part, rows)
            start_part = None if start is None else start[rows]
            searched = search(view, self.penalty, x_part, y_part, start_part)
            yield _BatchPart(view, x_part, y_part, searched, attacked, shares[index], rows)

    def _ends(self, parts: list[_BatchPart], x: Tensor) -> Tensor:
        """Where the searches of all processes have ended, the shape of x; NaN where none has."""
        ends, known = torch.zeros_like(x), x.new_zeros(len(x))
        for part in parts:
            end = None if part.searched is None else self.penalty.end(part.searched)
            if end is not None:
                ends[part.rows], known[part.rows] = end, 1.0
        ends, known = self.processes.add_up([ends, known])
        return ends.masked_fill(per_sample(known == 0, ends), math.nan)

    def _shares(self, y: Tensor, parts: Sequence[slice]) -> list[float]:
        """What each part weighs in the mean over the batch, as the loss weighs its samples."""
        if len(parts) == 1:
            return [1.0]
        weights = self.criterion.sample_weights(y)
        if weights is None:
            weights = torch.ones(len(y))
        sums = torch.stack([weights[rows].double().sum() for rows in parts])
        shares: list[float] = (sums / sums.sum()).tolist()
        return shares

    def _back_propagate(
        self, parts: list[_BatchPart], optimizer: torch.optim.Optimizer
    ) -> tuple[float, float, Tensor]:
        """Fill the gradients, term by term; the batch's loss and penalty, the parts' logits."""
        self.model.zero_grad(set_to_none=True)  # parameters outside the optimizer too
        optimizer.zero_grad(set_to_none=True)
        clean, penalty, logits = 0.0, 0.0, []
        waiting: Tensor | None = None
        for part in parts:
            for term in objective_terms(
                part.view,
                self.penalty,
                part.x,
                part.y,
                part.searched,
                x_clean=part.x_clean,
                comparison=self.comparison,
            ):
                value, scale = float(term.value.detach()), part.share
                if not math.isfinite(value) and self.processes.size == 1:
                    raise NonFiniteError(f"the loss is {value}")
                if term.outputs is not None:
                    clean += scale * value
                    logits.append(term.outputs.detach())
                else:
                    scale *= term.weight
                    penalty += scale * value
                    scale *= part.view.settings.lam
                # A part of the penalty may be held: it counts, and pulls at nothing.
                if term.outputs is not None or term.value.requires_grad:
                    loss = scale * term.value
                    waiting = loss if waiting is None else waiting + loss
                    if not term.joins_next:
                        waiting.backward()  # type: ignore[no-untyped-call]
                        waiting = None
        if self.processes.size > 1:
            parameters = [*parameters_of(optimizer), *self.model.parameters()]
            clean, penalty = self._share(list(dict.fromkeys(parameters)), clean, penalty)
        nothing = parameters_of(optimizer)[0].new_zeros(0, 2)
        return clean, penalty, torch.cat(logits) if logits else nothing

    def _share(
        self, parameters: list[nn.Parameter], clean: float, penalty: float
    ) -> tuple[float, float]:
        """Add up gradients and terms over the processes.

        Raises NonFiniteError in all of them where a term is not finite in one.
        """
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        # What no process has a gradient of stays without one, as with a single process.
        used = [float(p.grad is not None) for p in parameters]
        sums = torch.tensor([clean, penalty, *used], dtype=torch.float64).to(parameters[0].device)
        *gradients, sums = self.processes.add_up([*gradients, sums])
        clean, penalty, *used = sums.tolist()
        if not math.isfinite(clean + penalty):
            raise NonFiniteError(f"the loss is {clean + penalty} in one of the processes")
        for parameter, gradient, times in zip(parameters, gradients, used, strict=True):
            parameter.grad = gradient if times else None
        return clean, penalty

    def _share_statistics(self, weight: float) -> None:
        """Give all processes the mean of their running statistics, weighted by their rows."""
        if self.processes.size == 1:
            return
        floating = [b for b in self.model.buffers() if b.is_floating_point()]
        others = [b for b in self.model.buffers() if not b.is_floating_point()]
        with torch.no_grad():
            means = self.processes.add_up([weight * buffer for buffer in floating])
            counts = self.processes.from_main([buffer.cpu() for buffer in others])
            for buffer, value in zip([*floating, *others], [*means, *counts], strict=True):
                buffer.copy_(value)


def _put_back(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give buffers, running statistics among them, the values of before a step."""
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def _refusal(optimizer: torch.optim.Optimizer, error: Exception) -> str:
    """Why an optimizer cannot be used, from what its step has raised."""
    said = " ".join(str(error).split())[:120]
    # SAM and others whose signature does not say so call None, or assert.
    closure = "closure" in said or "'NoneType' object is not callable" in said
    what = "needs a closure" if closure else f"fails with {type(error).__name__}"
    return (
        f"classifier has the optimizer {type(optimizer).__name__}, whose `step` {what} "
        f"({said or type(error).__name__}); allowed: one whose step() takes no argument and "
        "follows dense gradients, such as SGD or Adam"
    )
