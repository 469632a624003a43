"""Mean and standard deviation inside the network, so that a user's images stay in [0, 1]."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from art_lfr.errors import UsageError

# Of CIFAR-10's training images in [0, 1], by channel (red, green, blue).
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


class Normalise(nn.Module):
    """(x - mean) / std by channel: (..., C, H, W) -> (..., C, H, W).

    As a layer of the network it leaves eps, gradients and flatness in raw input units. `mean` and
    `std` have one number for each of the C channels and are buffers: they go with the state dict.

    Raises ValueError for unequal lengths and a `std` that is not above 0; the forward pass raises
    RuntimeError, as torch's layers do, for images with another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) == 0 or len(mean) != len(std):
            raise UsageError(
                f"mean is {mean!r} and std is {std!r}; allowed: one number for each channel in both"
            )
        values = torch.tensor([list(mean), list(std)], dtype=torch.float32)
        if not bool(values.isfinite().all()) or not bool((values[1] > 0).all()):
            raise UsageError(
                f"mean is {mean!r} and std is {std!r}; allowed: finite numbers, std above 0"
            )
        self.register_buffer("mean", values[0].clone().view(-1, 1, 1))
        self.register_buffer("std", values[1].clone().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Shift and scale each channel; one channel is never stretched to more by broadcasting."""
        if x.dim() < 3 or x.shape[-3] != len(self.mean):
            raise RuntimeError(
                f"the network takes images of {len(self.mean)} channels, (N, {len(self.mean)}, H, "
                f"W); x has shape {tuple(x.shape)}"
            )
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        """The numbers, for the printed network."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def normalised(
    network: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None
) -> nn.Module:
    """The network behind `Normalise`, or the network itself where both are None."""
    if mean is None and std is None:
        return network
    if mean is None or std is None:
        raise UsageError(f"mean is {mean!r} and std is {std!r}; allowed: both or neither None")
    return nn.Sequential(OrderedDict(normalise=Normalise(mean, std), network=network))
