"""Residual networks for 32x32 colour images: ResNet-20, and a narrow one for CPU runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from art_lfr.models.factory import Activation, kaiming_convolutions, seeded
from art_lfr.models.normalise import CIFAR10_MEAN, CIFAR10_STD, normalised

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """act(F(x) + shortcut(x)), F two 3x3 convolutions with BatchNorm: (N, C, H, W) -> (N, D, ...).

    The shortcut is the identity, or a 1x1 convolution with BatchNorm (option B of He et al. 2016)
    where channels or resolution change.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, activation: Activation = nn.ReLU
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            activation(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's body to its shortcut."""
        output: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return output


def resnet_20(
    seed: int = 0,
    *,
    classes: int = 10,
    activation: Activation = nn.ReLU,
    mean: Sequence[float] | None = CIFAR10_MEAN,
    std: Sequence[float] | None = CIFAR10_STD,
) -> nn.Module:
    """ResNet-20 for CIFAR: (N, 3, 32, 32) in [0, 1] -> (N, classes) logits.

    A 3x3 convolution, three stages of three basic blocks (16, 32, 64 channels), average pooling and
    a linear layer. Shortcuts that change shape are 1x1 convolutions (option B; the paper's CIFAR
    networks pad with zeros, option A). Convolutions begin as in He et al. 2015. The images are
    normalised inside by `mean` and `std`, CIFAR-10's unless given; None for both leaves them out.

    The same `seed` gives the same weights; the global random state is left as found.
    Source: He et al. 2016, "Deep residual learning for image recognition", section 4.2.
    """
    return seeded(
        lambda: normalised(kaiming_convolutions(_resnet(3, classes, activation)), mean, std),
        seed,
        classes,
    )


def narrow_resnet(
    seed: int = 0,
    *,
    classes: int = 10,
    activation: Activation = nn.ReLU,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """A ResNet with BatchNorm for CPU runs: (N, 3, 32, 32) in [0, 1] -> (N, classes) logits.

    `resnet_20` with one block a stage instead of three, weights as PyTorch begins them, and
    normalisation inside only where `mean` and `std` are given. The same `seed` gives the same
    weights; the global random state is left as found.
    """
    return seeded(lambda: normalised(_resnet(1, classes, activation), mean, std), seed, classes)


def _resnet(blocks: int, classes: int, activation: Activation) -> nn.Sequential:
    """A 3x3 convolution, a stage of `blocks` blocks for each width, pooling, a linear layer."""
    channels = WIDTHS[0]
    layers: list[nn.Module] = [
        nn.Conv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        activation(),
    ]
    for stage, width in enumerate(WIDTHS):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(BasicBlock(channels, width, stride, activation))
            channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )
