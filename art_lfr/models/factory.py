"""What the factories of networks have in common: their arguments, and weights from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import nn

from art_lfr.core.arguments import check_integer
from art_lfr.core.randomness import preserved_random_state

# Makes a fresh module at each call, as the class torch.nn.ReLU does.
Activation: TypeAlias = Callable[[], nn.Module]


class Factory(Protocol):
    """What every function that makes a built-in network takes."""

    def __call__(
        self, seed: int = 0, *, classes: int = 10, activation: Activation = nn.ReLU
    ) -> nn.Module:
        """Make the network with the weights that `seed` fixes."""
        ...


def seeded(make: Callable[[], nn.Module], seed: int, classes: int) -> nn.Module:
    """What `make` returns with torch's generator at `seed`; the global state is left as found.

    Raises TypeError or ValueError unless `seed` is an integer >= 0 and `classes` one >= 2.
    """
    check_integer("seed", seed, low=0)
    check_integer("classes", classes, low=2)
    with preserved_random_state(torch.device("cpu")):
        torch.manual_seed(seed)
        return make()


def kaiming_convolutions(network: nn.Module) -> nn.Module:
    """Draw every convolution anew from N(0, 2 / (k^2 * channels out)), as ResNets are begun.

    Linear and BatchNorm layers stay as PyTorch begins them. Source: He et al. 2015, "Delving deep
    into rectifiers", equation 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
