"""Small convolutional networks for grey images, without BatchNorm and normalisation."""

from __future__ import annotations

from torch import nn

from art_lfr.models.factory import Activation, seeded


def digits_cnn(seed: int = 0, *, classes: int = 10, activation: Activation = nn.ReLU) -> nn.Module:
    """A small CNN for 8x8 grey images: (N, 1, 8, 8) in [0, 1] -> (N, classes) logits.

    A 4x4 convolution of stride 2 and a 3x3 one (32 and 64 channels, padding 1), two linear layers.
    The same `seed` gives the same weights; the global random state is left as found.
    """
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 32, 4, stride=2, padding=1),
            activation(),
            nn.Conv2d(32, 64, 3, padding=1),
            activation(),
            nn.Flatten(),
            nn.Linear(1024, 128),
            activation(),
            nn.Linear(128, classes),
        ),
        seed,
        classes,
    )


def small_cnn(seed: int = 0, *, classes: int = 10, activation: Activation = nn.ReLU) -> nn.Module:
    """A small CNN for 28x28 grey images such as MNIST: (N, 1, 28, 28) in [0, 1] -> (N, classes).

    Two 4x4 convolutions of stride 2 (16 and 32 channels, padding 1), two linear layers. The same
    `seed` gives the same weights; the global random state is left as found.
    """
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            activation(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            activation(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 100),
            activation(),
            nn.Linear(100, classes),
        ),
        seed,
        classes,
    )


def paper_cnn(seed: int = 0, *, classes: int = 10, activation: Activation = nn.ReLU) -> nn.Module:
    """The SmallCNN of the LFR paper: (N, 1, 28, 28) in [0, 1] -> (N, classes) logits.

    Four 3x3 convolutions without padding (32, 32, 64, 64 channels), 2x2 max-pooling after the
    second and the fourth, three linear layers (200, 200, classes); no dropout. Weights begin as
    PyTorch begins them; the same `seed` gives the same ones, and the global random state is left
    as found. The architecture is that of Carlini and Wagner 2017, "Towards evaluating the
    robustness of neural networks", table 1.
    """
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 32, 3),
            activation(),
            nn.Conv2d(32, 32, 3),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            activation(),
            nn.Conv2d(64, 64, 3),
            activation(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 200),
            activation(),
            nn.Linear(200, 200),
            activation(),
            nn.Linear(200, classes),
        ),
        seed,
        classes,
    )
