"""Channels-last order of convolutions' weights in memory, where a network takes it and gains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.core.criterion import logits_of
from art_lfr.core.modes import frozen, mode, protected_buffers
from art_lfr.core.randomness import preserved_random_state
from art_lfr.errors import UsageError

# Operations of the convolutions for each sample. On a CPU networks of 19 million and more took 0.70
# to 0.77 of the time, such of 1 million as much or more (benchmarks/speed/channels_last.py).
WORTH = 5e6
PROBED = 4
# Both orders add up the same products in another order.
ROUNDING = 1e-3


@contextmanager
def channels_last(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Have the weights of 2d convolutions in channels-last order for a while.

    Values are the same; afterwards they are in the memory in which they were, so that whoever
    holds it sees the new ones. What an optimizer keeps for a weight is moved with it: fused ones
    take both for equally laid out.
    """
    memory = {weight: weight.data for weight in _weights(model)}
    for weight in memory:
        weight.data = _in_order(weight.data)
        _rearrange(optimizer, weight, _in_order)
    try:
        yield
    finally:
        for weight, own in memory.items():
            own.copy_(weight.data)
            weight.data = own
            if weight.grad is not None:
                weight.grad = weight.grad.contiguous()
            _rearrange(optimizer, weight, Tensor.contiguous)


def gains_by_channels_last(
    model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer | None = None
) -> bool:
    """Whether a network takes its convolutions' weights in that order, and is faster for it.

    x are some samples. It gains on a CPU, if its convolutions are work enough; that is counted, not
    timed, so that the same run takes the same order on each day. An optimizer that is not torch's
    may want weights as they were.
    """
    compiled = any(hasattr(module, "_orig_mod") for module in model.modules())
    own = optimizer is not None and not type(optimizer).__module__.startswith("torch.optim")
    if own or not _weights(model) or x.dim() != 4 or x.device.type != "cpu" or compiled:
        return False
    return _work(model, x) >= WORTH and takes_channels_last(model, x)


def takes_channels_last(model: nn.Module, x: Tensor) -> bool:
    """Whether logits and input gradients are the same in both orders, up to rounding.

    In eval mode; in train mode whether they can be taken. A `view` behind a convolution that joins
    channels with pixels raises in this order; two weights on the same memory would be untied.
    """
    weights = _weights(model)
    if len(weights) != len({weight.data_ptr() for weight in weights}):
        return False
    nothing = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    for training in (False, True):
        try:
            expected = _outputs(model, x[:PROBED], training)
            with channels_last(model, nothing):
                found = _outputs(model, x[:PROBED], training)
        except ValueError:  # a BatchNorm, of a single sample
            continue
        except RuntimeError:  # training will name what fails in either order
            return False
        if training:  # masks are drawn in the order of memory
            continue
        pairs = zip(found, expected, strict=True)
        if not all(bool((a - b).norm() <= ROUNDING * b.norm()) for a, b in pairs):
            return False
    return True


def check_takes_channels_last(model: nn.Module, x: Tensor) -> None:
    """Raise UsageError where it was asked for and a network does not take it."""
    if x.dim() != 4 or not _weights(model) or not takes_channels_last(model, x):
        raise UsageError(
            "channels_last is True with a network that does not give the same in that order; "
            "allowed: None or False (a view() behind a convolution raises, flatten(1) does not)"
        )


@contextmanager
def _looking(model: nn.Module, x: Tensor, *, training: bool = False) -> Iterator[None]:
    """For a pass that leaves nothing behind, and draws what the next such pass draws."""
    with (
        preserved_random_state(x.device),
        mode(model, training=training),
        protected_buffers(model),
        frozen(model),
    ):
        yield


def _work(model: nn.Module, x: Tensor) -> float:
    """Multiplications and additions of the convolutions for one sample."""
    work = 0.0

    def count(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal work
        work += 2.0 * output.numel() * module.weight[0].numel()  # type: ignore[index]

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    try:
        with torch.no_grad(), _looking(model, x):
            model(x[:1].clone())
    finally:
        for hook in hooks:
            hook.remove()
    return work


def _outputs(model: nn.Module, x: Tensor, training: bool) -> tuple[Tensor, Tensor]:
    with _looking(model, x, training=training), torch.enable_grad():
        x = x.detach().clone().requires_grad_(True)
        logits = logits_of(model(x.clone()))
        (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach(), gradient


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of 2d convolutions that are parameters with a memory of their own, once each."""
    found = [
        module._parameters.get("weight")
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and type(module.weight) is nn.Parameter
    ]
    return [
        weight
        for weight in dict.fromkeys(found)
        if weight is not None
        and weight.is_contiguous()
        and weight.untyped_storage().nbytes() == weight.numel() * weight.element_size()
    ]


def _in_order(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last)


def _rearrange(
    optimizer: torch.optim.Optimizer, weight: nn.Parameter, order: Callable[[Tensor], Tensor]
) -> None:
    """What the optimizer keeps for a weight in its shape, in the order of the weight."""
    state: dict[str, Any] = optimizer.state.get(weight, {})
    for name, value in state.items():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            state[name] = order(value)
