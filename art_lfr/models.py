"""Small networks for the demo, the command line and the examples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from art_lfr.randomness import preserved_random_state


def digits_cnn(seed: int = 0) -> nn.Module:
    """A small CNN for 8x8 grey images: (N, 1, 8, 8) in [0, 1] -> (N, 10) logits.

    A 4x4 convolution of stride 2 and a 3x3 one (32 and 64 channels, padding 1), two linear layers.
    The same `seed` gives the same weights; the global random state is left as found.
    """
    return _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1024, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        ),
        seed,
    )


def small_cnn(seed: int = 0) -> nn.Module:
    """A small CNN for 28x28 grey images such as MNIST: (N, 1, 28, 28) in [0, 1] -> (N, 10) logits.

    Two 4x4 convolutions of stride 2 (16 and 32 channels, padding 1), two linear layers. The same
    `seed` gives the same weights; the global random state is left as found.
    """
    return _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 100),
            nn.ReLU(),
            nn.Linear(100, 10),
        ),
        seed,
    )


# The names that the command line takes for --model.
BUILT_IN: dict[str, Callable[[int], nn.Module]] = {
    "digits-cnn": digits_cnn,
    "small-cnn": small_cnn,
}


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with preserved_random_state(torch.device("cpu")):
        torch.manual_seed(seed)
        return make()
