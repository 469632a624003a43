"""The network as ART's classifier, and the optimizer that all kinds of methods share."""

from __future__ import annotations

import math
from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from art_lfr.comparison.plan import Run
from art_lfr.core.arguments import Array
from art_lfr.core.criterion import logits_of
from art_lfr.core.modes import parameters_of

MOMENTUM = 0.9


class WholeNetwork(nn.Module):
    """A network as one step: of an `nn.Sequential`, ART's TRADES takes the first layer's output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The network's logits."""
        return logits_of(self.network(x))


def make_classifier(model: nn.Module, run: Run, x: Array, classes: int) -> PyTorchClassifier:
    """ART's classifier around a network, with the optimizer of the run."""
    s = run.settings
    return wrapped(model, x, classes, lr=s["lr"], momentum=MOMENTUM, weight_decay=s["weight_decay"])


def wrapped(
    model: nn.Module,
    x: Array,
    classes: int,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> PyTorchClassifier:
    """ART's classifier around a network, with SGD."""
    # Convolutions with BatchNorm take a third less time so on a CPU; the values are the same.
    network: Any = WholeNetwork(model)  # torch's own types have no memory_format before 2.14
    network.to(memory_format=torch.channels_last)
    return PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        x.shape[1:],
        classes,
        optimizer=torch.optim.SGD(
            network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
        ),
        clip_values=(0.0, 1.0),
    )


def one_cycle(run: Run, optimizer: torch.optim.Optimizer, images: int) -> Any:
    """The learning rate over the whole run: one cycle, a step for each optimizer step."""
    batches = math.ceil(images / run.settings["batch_size"])
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=run.settings["lr"], total_steps=run.settings["epochs"] * batches + 1
    )


def clip_gradients(run: Run, optimizer: torch.optim.Optimizer) -> None:
    """Clip the gradient's norm before each step of one of ART's trainers, as LFR's trainer can.

    ART's trainers have no such setting.
    """
    limit = run.settings.get("max_grad_norm")
    if limit is None:
        return

    def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        nn.utils.clip_grad_norm_(parameters_of(optimizer), limit)

    optimizer.register_step_pre_hook(clip)
