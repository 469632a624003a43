"""Temporary states of a module: evaluation, frozen parameters, protected buffers.

Each context manager restores every flag it touched, module by module, also when an exception
passes through: a user may have put some layers in eval mode or frozen some parameters on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put the whole model in train or eval mode; restore each module's own flag afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    was_training = model.training
    try:
        model.train(training)
        yield
    finally:
        # First by `train`, for layers that do more in it than to set the flag (LoRA merges).
        model.train(was_training)
        for module, flag in flags:
            module.training = flag


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Clear `requires_grad` of all parameters, so that no parameter gradient is computed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def protected_buffers(model: nn.Module) -> Iterator[None]:
    """Let forward passes update copies of the buffers, then put the originals back.

    Running statistics belong to the clean forward alone. The originals are swapped out, not
    overwritten afterwards, because autograd may hold them for the backward pass.
    """
    originals: list[tuple[nn.Module, str, Tensor]] = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and module.training
    ]
    try:
        for module, name, buffer in originals:
            module._buffers[name] = buffer.clone()
        yield
    finally:
        for module, name, buffer in originals:
            module._buffers[name] = buffer


@contextmanager
def batch_norm_mode(model: nn.Module, choice: str) -> Iterator[None]:
    """Run BatchNorm (and InstanceNorm with statistics) as `choice` says: "train" or "eval".

    "train" keeps the layers as they are; "eval" makes them use their running statistics.
    """
    layers = [m for m in normalisation_layers(model) if m.training] if choice == "eval" else []
    try:
        for layer in layers:
            layer.training = False
        yield
    finally:
        for layer in layers:
            layer.training = True


def normalisation_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that couple the samples of a batch or keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]


def differs_in_training(model: nn.Module) -> bool:
    """Whether a layer, as its mode is now, does something else than in eval mode, masks apart.

    Normalisation layers do, and modules that say so by an attribute of this function's name.
    """
    layers = [*normalisation_layers(model)]
    layers += [m for m in model.modules() if getattr(m, "differs_in_training", False)]
    return any(layer.training for layer in layers)


def device_of(model: nn.Module, fallback: Tensor) -> torch.device:
    """The device of the model's first parameter, or that of `fallback` where it has none."""
    parameter = next(model.parameters(), None)
    return fallback.device if parameter is None else parameter.device


def default_device() -> torch.device:
    """The current GPU where there is one, as ART's classifiers choose by themselves."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type of the model's first floating parameter, or float32 where it has none."""
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(floating, torch.float32)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
