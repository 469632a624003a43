"""Adversarial weight perturbation: the gradient is taken at weights that make the loss worse.

Source: Wu, Xia, Wang, "Adversarial weight perturbation helps robust generalization", NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def perturbed_weights(model: nn.Module, size: float) -> Iterator[None]:
    """Move each weight tensor w by size * ||w|| * g / ||g||, with g its present gradient.

    Tensors of one dimension (biases, normalisation) and those without a gradient stay, as in the
    paper. The weights are put back exactly, also when an exception passes through.
    """
    moved = [
        (parameter, parameter.detach().clone())
        for parameter in model.parameters()
        if parameter.dim() > 1 and parameter.grad is not None
    ]
    try:
        with torch.no_grad():
            for parameter, _ in moved:
                gradient = parameter.grad
                assert gradient is not None
                norm = gradient.norm()
                if norm > 0:
                    parameter.add_(gradient * (size * parameter.norm() / norm))
        yield
    finally:
        with torch.no_grad():
            for parameter, original in moved:
                parameter.copy_(original)
