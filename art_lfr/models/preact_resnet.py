"""The pre-activation ResNet-18 that adversarial training on CIFAR is usually measured with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from art_lfr.models.factory import Activation, kaiming_convolutions, seeded
from art_lfr.models.normalise import CIFAR10_MEAN, CIFAR10_STD, normalised

WIDTHS = (64, 128, 256, 512)
BLOCKS = 2


class PreActivationBlock(nn.Module):
    """F(a) + shortcut, a = act(BatchNorm(x)), F two 3x3 convolutions: (N, C, H, W) -> (N, D, ...).

    The shortcut is x itself, or a 1x1 convolution of a where channels or resolution change.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(inputs), activation())
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            activation(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's body to its shortcut."""
        activated = self.before(x)
        output: Tensor = self.body(activated)
        return output + (x if self.shortcut is None else self.shortcut(activated))


def preact_resnet_18(
    seed: int = 0,
    *,
    classes: int = 10,
    activation: Activation = nn.ReLU,
    mean: Sequence[float] | None = CIFAR10_MEAN,
    std: Sequence[float] | None = CIFAR10_STD,
) -> nn.Module:
    """Pre-activation ResNet-18 for CIFAR: (N, 3, 32, 32) in [0, 1] -> (N, classes) logits.

    A 3x3 convolution, four stages of two blocks (64, 128, 256, 512 channels, stride 2 from the
    second on), BatchNorm and activation, average pooling and a linear layer. Convolutions begin as
    in He et al. 2015. The images are normalised inside by `mean` and `std`, CIFAR-10's unless
    given; None for both leaves them out.

    The same `seed` gives the same weights; the global random state is left as found.
    Source: He et al. 2016, "Identity mappings in deep residual networks".
    """
    return seeded(
        lambda: normalised(kaiming_convolutions(_preact(classes, activation)), mean, std),
        seed,
        classes,
    )


def _preact(classes: int, activation: Activation) -> nn.Sequential:
    channels = WIDTHS[0]
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    for stage, width in enumerate(WIDTHS):
        for block in range(BLOCKS):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(PreActivationBlock(channels, width, stride, activation))
            channels = width
    return nn.Sequential(
        *layers,
        nn.BatchNorm2d(channels),
        activation(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )
