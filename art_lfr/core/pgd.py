"""Projected gradient descent, and what a model says of samples: loss, correctness, label."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.geometry import Ball
from art_lfr.core.modes import frozen, mode
from art_lfr.core.precision import finite_input_gradient
from art_lfr.core.processes import Processes


def projected_gradient_descent(
    model: nn.Module,
    criterion: Criterion,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    steps: int,
    step_size: float,
    start: Tensor,
    watch: Callable[[Tensor, Tensor], object] | None = None,
) -> Tensor:
    """Adversarial examples by PGD (Madry et al. 2018), shape of x; the model in eval mode.

    x_{k+1} = project(x_k + step_size * steepest(grad l(x_k))), with x_0 = `start`, in Madry et al.
    `ball.random_point(x, generator)`. A quick watch over
    training, not an evaluation: use `art_lfr.evaluate` for a number to report. `watch` gets each
    point and its gradient, before the step.
    """
    point = start
    with mode(model, training=False), frozen(model):
        for _ in range(steps):
            gradient = finite_input_gradient(model, criterion, point, y)
            if watch is not None:
                watch(point, gradient)
            point = ball.ascend(point, gradient, x, step_size)
    return point


def classify(
    model: nn.Module,
    criterion: Criterion,
    x: Tensor,
    y: Tensor,
    batch_size: int,
    processes: Processes | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Per-sample loss, correctness and predicted label, each (N,), in eval mode.

    `processes` deal the batches among them, and all get all values.
    """
    processes = processes or Processes.single()
    inputs, targets = torch.split(x, batch_size), torch.split(y, batch_size)

    def of_batch(index: int) -> list[Tensor]:
        outputs, wanted = logits_of(model(inputs[index])), targets[index]
        found = criterion.values(outputs, wanted), criterion.correct(outputs, wanted)
        return processes.to_send(*found, criterion.predicted(outputs))

    with mode(model, training=False), torch.no_grad():
        found = processes.dealt(len(inputs), of_batch)
    losses, correct, labels = (torch.cat(parts).to(x.device) for parts in zip(*found, strict=True))
    return losses, correct, labels
