"""RobustBench's three conditions on a defence: `check_conditions`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.art.module_or_classifier import adapter_of
from art_lfr.attacks.target import preserved_gradients
from art_lfr.autoattack.backend import differentiates
from art_lfr.check.model import Finding
from art_lfr.check.probing import Probe
from art_lfr.core.arguments import check_integer
from art_lfr.core.criterion import logits_of
from art_lfr.core.modes import device_of, dtype_of, mode
from art_lfr.core.randomness import preserved_random_state
from art_lfr.core.samples import as_tensor, check_inputs

# Samples on which layers are tried one by one.
PROBED = 4
# "In general" non-zero: a few dead units are no defence by masking.
MOST_ZERO_GRADIENTS = 0.1
# AutoAttack's own tolerance for logits scaled to norm 1, and its number of passes.
TOLERANCE = 1e-4
PASSES = 5


@dataclass(frozen=True)
class Conditions:
    """Which of the three conditions hold, and in `findings` why others do not.

    Attributes:
        gradients: The gradient in the input is not zero for more than a tenth of the samples.
        deterministic: Equal inputs give equal outputs.
        no_optimization: The forward pass computes no gradient.
        findings: A reason for each that fails, and zero gradients of single samples as warnings.
    """

    gradients: bool
    deterministic: bool
    no_optimization: bool
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether RobustBench would take the defence."""
        return self.gradients and self.deterministic and self.no_optimization

    def __str__(self) -> str:
        names = {
            "non-zero input gradients": self.gradients,
            "deterministic forward pass": self.deterministic,
            "no optimisation loop in the forward pass": self.no_optimization,
        }
        lines = [f"{name}: {'yes' if holds else 'NO'}" for name, holds in names.items()]
        return "\n".join([*lines, *map(str, self.findings)])


def check_conditions(model: object, x: Any, *, samples: int = 50) -> Conditions:
    """Try a model on a few samples for what RobustBench asks of a defence, in eval mode.

    1. The gradient in x of the margin z_(1) - z_(2) of the two largest logits is not zero.
    2. Five forward passes agree: predictions, and logits scaled to norm 1 up to 1e-4.
    3. No forward pass calls torch's backward engine.

    Passing is no proof of robustness. Weights (a forward pass may change them), modes, flags,
    gradients and the global random state are left as found.

    Args:
        model: A module, or an ART `PyTorchClassifier`.
        x: Inputs, shape (N, ...), in raw units.
        samples: Try this many inputs, the first ones.

    Raises:
        ValueError, TypeError: For bad arguments, naming the parameter.

    Source: Croce et al., "RobustBench: a standardized adversarial robustness benchmark", 2021.
    """
    check_integer("samples", samples, low=1)
    inputs = as_tensor("x", x)[:samples]
    check_inputs("x", inputs)
    adapter = adapter_of(model)
    module, network = adapter.module, adapter.network
    device = device_of(network, inputs)
    inputs = inputs.clone().to(device=device, dtype=dtype_of(network))
    findings: list[Finding] = []
    with _preserved_tensors(module), preserved_random_state(device), mode(module, training=False):
        probe = Probe(module, network, inputs[:PROBED])
        optimizes = differentiates(module, inputs[:PROBED].clone())
        if optimizes:
            findings.append(
                Finding(
                    "model",
                    "the forward pass computes gradients, as an optimisation loop does",
                    "leave the loop out, or attack the model with one made for it",
                    "error",
                )
            )
        difference = _largest_difference(module, inputs)
        deterministic = difference <= TOLERANCE
        if not deterministic:
            findings += _random(probe, difference)
        zero = _zero_gradients(module, inputs)
        gradients = float(zero.double().mean()) <= MOST_ZERO_GRADIENTS
        if bool(zero.any()):
            findings += _without_gradient(probe, zero, "warning" if gradients else "error")
    return Conditions(gradients, deterministic, not optimizes, tuple(findings))


def _largest_difference(model: nn.Module, x: Tensor) -> float:
    """How far logits scaled to norm 1 differ between passes; infinite where predictions do."""
    with torch.no_grad():
        passes = torch.stack([logits_of(model(x.clone())).double() for _ in range(PASSES)])
    labels = passes.argmax(dim=2)
    if bool((labels != labels[0]).any()):
        return float("inf")
    scaled = passes / (torch.linalg.vector_norm(passes, dim=2, keepdim=True) + 1e-10)
    # NaN in one pass and not in another is a difference too.
    largest = torch.linalg.vector_norm((scaled - scaled[0]).nan_to_num(), dim=2).max()
    same = bool((passes.isnan() == passes[0].isnan()).all())
    return float(largest) if same else float("inf")


def _random(probe: Probe, difference: float) -> Iterator[Finding]:
    what = "predictions" if difference == float("inf") else f"scaled logits by {difference:.1g}"
    for layer in probe.random_layers(training=False) or ["model"]:
        yield Finding(
            layer,
            f"passes on the same inputs differ: {what}",
            "make the forward pass deterministic; AutoAttack's version='rand' is for such models",
            "error",
        )


def _zero_gradients(model: nn.Module, x: Tensor) -> Tensor:
    """Whether the gradient of each sample's margin is zero or NaN, shape (N,)."""
    point = x.clone().requires_grad_(True)
    with torch.enable_grad():
        # Times 1, so that a model may write to its input.
        largest = logits_of(model(point * 1)).topk(2, dim=1).values
        margin = (largest[:, 0] - largest[:, 1]).sum()
        if not margin.requires_grad:
            return torch.ones(len(x), dtype=torch.bool)
        (gradient,) = torch.autograd.grad(margin, point, allow_unused=True)
    if gradient is None:
        return torch.ones(len(x), dtype=torch.bool)
    size = gradient.flatten(1).abs().amax(dim=1)
    return ((size == 0) | size.isnan()).cpu()


def _without_gradient(probe: Probe, zero: Tensor, severity: str) -> Iterator[Finding]:
    share = f"the input gradient is zero for {int(zero.sum())} of {len(zero)} samples"
    for layer, reason in list(probe.without_derivative(1)) or [("model", "")]:
        yield Finding(
            layer,
            f"{share}: {reason}" if reason else share,
            "make the layer differentiable, or attack through a differentiable stand-in (BPDA)",
            severity,
        )


@contextmanager
def _preserved_tensors(model: nn.Module) -> Iterator[None]:
    """Put back parameters and buffers, to which a forward pass may write, and gradients."""
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        with preserved_gradients(model.parameters()):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
