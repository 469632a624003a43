"""Layers in a narrow type: a network's passes in bfloat16 or float16, losses in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.geometry import per_sample
from art_lfr.core.gradients import input_gradient
from art_lfr.core.modes import device_of, dtype_of
from art_lfr.errors import UsageError

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The sum of a batch's losses has gradients of up to 1 in the logits, and float16 ends at 65,504.
FIRST_SCALE = 2.0**10
NOWHERE = torch.empty(0)


class NarrowModel(nn.Module):
    """A network whose layers run in a narrow type, by `torch.autocast`; logits in float32.

    All but the first that has a weight matrix, inside `first_layer_in_full`: bfloat16 near 1 has
    steps of 1 / 256, so that images would lose much of a finite difference of h = 1 / 510. The
    layers behind it round too, and on ResNets for CIFAR-10 more of the error is theirs
    (benchmarks/speed/narrow_types.py). float16 ends at 6e-8: gradients pass the layers `scale`
    times as large. Those in the input come out right, those in the weights have to be divided by
    it.

    Attributes:
        model: The network, shared.
        dtype: What its layers run in.
        scale: What gradients are multiplied by on their way through.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype, self.scale = model, dtype, 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ...) to logits."""
        if self.scale != 1.0:
            x = _scaled(x, 1 / self.scale)
        # Without a cache: a context around this one would keep weights that training has changed.
        with torch.autocast(x.device.type, dtype=self.dtype, cache_enabled=False):
            logits = logits_of(self.model(x))
        if self.scale != 1.0:
            logits = _scaled(logits, self.scale)
        return logits

    @contextmanager
    def first_layer_in_full(self) -> Iterator[None]:
        """Leave autocast for the first layer that is called, of those with a weight matrix.

        For more than one pass: what is recomputed in a backward pass must be the same.
        """
        first: nn.Module | None = None
        found = False
        left: list[torch.autocast] = []

        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            nonlocal first, found
            if not found:
                # Narrow inputs come from an operation that is no such layer: there is none to keep.
                narrow = any(isinstance(x, Tensor) and x.dtype is self.dtype for x in inputs)
                first, found = (None if narrow else module), True
            if module is first:
                left.append(torch.autocast(device_of(module, NOWHERE).type, enabled=False))
                left[-1].__enter__()  # type: ignore[no-untyped-call]

        def after(module: nn.Module, *_: object) -> None:
            if module is first and left:
                left.pop().__exit__(None, None, None)

        hooks = []
        for layer in _with_matrix(self.model):
            hooks.append(layer.register_forward_pre_hook(before))
            hooks.append(layer.register_forward_hook(after, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class _ScaledGradient(torch.autograd.Function):
    """A copy, through which the gradient passes multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():  # for a derivative of this one, in which the factors mix
            raise UsageError(
                "precision is 'fp16' with double back-propagation (estimator 'exact', or the "
                "penalty); allowed: 'bf16' or 'float32'"
            )
        return gradients[0] * ctx.factor, None


# Untyped in some versions of torch.
_scaled: Callable[[Tensor, float], Tensor] = _ScaledGradient.apply


def _with_matrix(model: nn.Module) -> list[nn.Module]:
    """Convolutions, linear layers and the like: no module inside, a weight of two dimensions.

    A parametrized one has its weight in a module of that name.
    """

    def own(module: nn.Module) -> Iterator[nn.Parameter]:
        if nn.utils.parametrize.is_parametrized(module):
            return module.parameters()
        return module.parameters(recurse=False)

    return [
        module
        for module in model.modules()
        if not isinstance(module, nn.utils.parametrize.ParametrizationList)
        and all(name == "parametrizations" for name, _ in module.named_children())
        and any(parameter.dim() > 1 for parameter in own(module))
    ]


def lost_in_bfloat16(radius: float, x: Tensor) -> str | None:
    """What to warn of where h is below the rounding of the largest input, or None."""
    # A power of 2, so that the text, and with it the warning, is not new in each batch.
    most = 2.0 ** math.ceil(math.log2(max(float(x.abs().max()), 2.0**-126)))
    spacing = torch.finfo(torch.bfloat16).eps * most / 2
    if radius >= spacing:
        return None
    return (
        f"radius is {radius:g} with precision 'bf16', which rounds values of up to {most:g} to "
        f"{spacing:.2g}: the flatness will be off by some per cent. Take 'fp16' or 'float32'."
    )


def finite_input_gradient(model: nn.Module, criterion: Criterion, x: Tensor, y: Tensor) -> Tensor:
    """grad_x l; for samples whose scaled gradient overflows in float16, that without a scale.

    For a search, after which no optimizer would notice: steps along NaN do not move. Takes a second
    pass where one overflows, so it is for models that draw and keep nothing, as in eval mode.
    """
    gradient = input_gradient(model, criterion, x, y)
    if not isinstance(model, NarrowModel) or model.scale == 1.0:
        return gradient
    finite = gradient.flatten(1).isfinite().all(dim=1)
    if bool(finite.all()):
        return gradient
    scale, model.scale = model.scale, 1.0
    try:
        unscaled = input_gradient(model, criterion, x, y)
    finally:
        model.scale = scale
    return torch.where(per_sample(finite, x), gradient, unscaled)


def loss_scaler(device: torch.device) -> Any:
    """torch's `GradScaler`, with a scale that leaves room for input gradients."""
    scaler = torch.amp.GradScaler(device.type, init_scale=FIRST_SCALE)
    scaler.scale(torch.zeros((), device=device))  # so that it has its numbers
    return scaler


def check_precision(precision: str, model: nn.Module) -> None:
    """Raise UsageError where a network cannot run in a narrow type."""
    if precision == "float32":
        return
    where = f"precision is {precision!r} with"
    if (dtype := dtype_of(model)) is not torch.float32:
        name = str(dtype).removeprefix("torch.")
        raise UsageError(f"{where} a network of {name}; allowed: 'float32', or float32 weights")
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        raise UsageError(
            f"{where} a compiled network, whose first layer cannot be kept in float32; allowed: "
            "'float32', or the network as it was before"
        )
    device = device_of(model, NOWHERE).type
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError(f"{where} a GPU that has no bfloat16; allowed: 'fp16'")
    if precision == "fp16" and not hasattr(torch.amp, "GradScaler"):
        raise UsageError(
            f"{where} torch {torch.__version__}; allowed: torch 2.3 or later, or 'bf16'"
        )
