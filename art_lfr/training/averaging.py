"""An exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """average <- d * average + (1 - d) * weights, after every optimizer step.

    d = min(decay, (1 + t) / (10 + t)) at step t, so that the random initial weights are soon
    forgotten. Floating buffers (running statistics) are averaged too, others are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = copied_state(network)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the network's present weights into the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in tensors_of(network).items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    @contextmanager
    def swapped_in(self, network: nn.Module) -> Iterator[None]:
        """Give the network the averaged weights for a while."""
        raw = copied_state(network)
        try:
            put_state(network, self.state)
            yield
        finally:
            put_state(network, raw)


def copied_state(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the network's weights and buffers on their device."""
    return {name: value.detach().clone() for name, value in tensors_of(network).items()}


def put_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the network the weights and buffers that `copied_state` took."""
    network.load_state_dict(state, strict=False)  # a module's extra state stays its own


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """The network's weights and buffers themselves, without any extra state of its modules."""
    return {k: v for k, v in network.state_dict().items() if isinstance(v, Tensor)}


def same_state(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether the network's weights and buffers are bit-identical to `state`."""
    present = tensors_of(network)
    return present.keys() == state.keys() and all(
        torch.equal(value, state[name].to(value.device)) for name, value in present.items()
    )
