"""Whether an attack object was made for the judged model, or for one that computes otherwise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.attacks.target import Target, UnitBox, untouched
from art_lfr.core.criterion import logits_of
from art_lfr.core.modes import device_of, dtype_of
from art_lfr.core.randomness import seed_global_generators

# So many samples are compared, as they are and so far on the way to a random point of the box:
# a network that rounds its inputs is the same on images that are rounded already.
SAMPLES = 4
SHARE = 0.05
# Relative to the largest logit, and to the gradient's norm: a unit at its kink may round otherwise.
LOGITS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 0.05


def made_for_another(attack: Any, library: str, target: Target) -> bool:
    """Whether an attack object has a model of its own that computes another function.

    Outputs and input gradients are compared, for a wrapper with the same weights may round its
    inputs, or have a gradient of its own. A model that cannot be run on these inputs is another.
    """
    model = attack.estimator if library == "art" else getattr(attack, "model", None)
    if model is None or getattr(model, "model", model) is None:
        return False
    adapter = target.adapter
    if library == "art":
        if not hasattr(model, "model"):  # an estimator around a function
            return False
        return model is not adapter.classifier and not _same_as_judged(*_of_art(model), target)
    if any(model is judged for judged in (adapter.network, adapter.module, target.module)):
        return False
    forms: list[Callable[[Tensor], Any]] = [model]
    if library == "torchattacks":
        unit_box = UnitBox.of(target.ball.box, "torchattacks", "attacks of ART")
        forms.append(lambda raw: model(unit_box.to_unit(raw)))
        if getattr(attack, "_normalization_applied", None) is not None:
            forms.append(lambda raw: model(attack.normalize(unit_box.to_unit(raw))))
    return not any(_same_as_judged(form, model, target) for form in forms)


def _of_art(estimator: Any) -> tuple[Callable[[Tensor], Any], object]:
    """Raw inputs to the logits of an ART classifier, its preprocessing included, and its model."""
    from art_lfr.art.classifier import ClassifierModule

    def logits(raw: Tensor) -> Tensor:
        module = ClassifierModule(estimator)
        module.training = False  # of its preprocessing alone
        found: Tensor = module(raw)
        return found

    return logits, estimator.model


def _same_as_judged(function: Callable[[Tensor], Any], model: object, target: Target) -> bool:
    """Whether a function of raw inputs, which runs `model`, has the judged outputs and gradients.

    Nothing of either model is changed.
    """
    generator = torch.Generator().manual_seed(0)
    x, box = target.x[:SAMPLES], target.ball.box
    low = torch.where(box.low.isfinite(), box.low, x.min())
    high = torch.where(box.high.isfinite(), box.high, x.max())
    drawn = low + (high - low) * torch.rand(x.shape, generator=generator)
    points = box.clip(torch.cat([x, x + SHARE * (drawn - x)]))
    # Not the loss: its gradient is rounding alone where the model is sure.
    weights = torch.randn(target.classes, generator=generator)

    device, dtype = target.device, torch.float32
    with ExitStack() as stack:
        stack.enter_context(untouched(target.module, target.device))
        if isinstance(model, nn.Module):
            device, dtype = device_of(model, points), dtype_of(model)
            stack.enter_context(untouched(model, device))
        try:
            judged = _outputs_and_gradients(target.module, points.to(target.device), weights)
            found = _outputs_and_gradients(function, points.to(device, dtype), weights)
        except Exception:  # whatever a model raises on inputs that are none of its own
            return False
    if found[0].shape != judged[0].shape:
        return False
    # Outputs everywhere; gradients away from the kinks that flat parts of an image lie on.
    (outputs, gradients), (others, other_gradients) = judged, found
    rounding = 4 * torch.finfo(target.adapter.dtype).eps
    near = max(LOGITS_TOLERANCE, rounding) * outputs.abs().amax(dim=1, keepdim=True)
    if not bool(((outputs - others).abs() <= near).all()):
        return False
    norms = gradients.flatten(1).norm(dim=1)
    differences = (gradients - other_gradients).flatten(1).norm(dim=1)
    return bool((differences <= GRADIENT_TOLERANCE * norms)[len(x) :].all())


def _outputs_and_gradients(
    function: Callable[[Tensor], Any], x: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits of x and the gradient of their weighted sum in x, in float64 on the CPU."""
    seed_global_generators(0)  # random layers draw the same in both models
    x = x.detach().clone().requires_grad_(True)
    logits = logits_of(function(x))
    gradient = None
    if logits.requires_grad:
        total = (logits.float() * weights.to(logits.device)).sum()
        (gradient,) = torch.autograd.grad(total, x, allow_unused=True)
    gradient = torch.zeros_like(x) if gradient is None else gradient
    return logits.detach().double().cpu(), gradient.double().cpu()
