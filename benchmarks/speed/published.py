"""The published algorithm, written plainly: what LFR is compared with in time and memory.

Double back-propagation inside and out, parameters that require gradients throughout, and one more
forward pass for the training accuracy, as in the authors' description (Xu et al., ICIP 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def published_iteration(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int,
    step_size: float,
    lam: float,
) -> float:
    """One step on l(x) + lam * ||grad l(x')||_1 for l-inf; the training accuracy."""
    model.eval()
    point = (x + 0.001 * torch.randn_like(x)).clamp(0, 1)
    for _ in range(steps):
        point = point.detach().requires_grad_(True)
        loss = functional.cross_entropy(model(point), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
        (ascent,) = torch.autograd.grad(gradient.abs().sum(), point)
        point = point + step_size * ascent.sign()
        point = torch.minimum(torch.maximum(point, x - eps), x + eps).clamp(0, 1)
    model.train()
    optimizer.zero_grad()
    point = point.detach().requires_grad_(True)
    loss = functional.cross_entropy(model(point), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
    penalty = gradient.abs().flatten(1).sum(dim=1).mean()
    (functional.cross_entropy(model(x), y) + lam * penalty).backward()
    optimizer.step()
    with torch.no_grad():
        return float((model(x).argmax(dim=1) == y).double().mean())
