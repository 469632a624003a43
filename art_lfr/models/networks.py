"""The built-in networks, with fresh weights from a seed.

There are small ones for grey images and residual ones for 32x32 colour images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from art_lfr.core.arguments import check_integer, check_seed
from art_lfr.core.randomness import preserved_random_state
from art_lfr.errors import UsageError

# Makes a fresh module at each call, as the class torch.nn.ReLU does.
Activation: TypeAlias = Callable[[], nn.Module]


class Factory(Protocol):
    """What every function that makes a built-in network takes."""

    def __call__(
        self, seed: int = 0, *, classes: int = 10, activation: Activation = nn.ReLU
    ) -> nn.Module:
        """Make the network with the weights that `seed` fixes."""
        ...


@contextmanager
def seeded(seed: int, classes: int) -> Iterator[None]:
    """Torch's generator at `seed` for a while; the global state is left as found.

    Raises TypeError or ValueError unless `seed` is an integer >= 0 and `classes` one >= 2.
    """
    check_seed("seed", seed)
    check_integer("classes", classes, low=2)
    with preserved_random_state(torch.device("cpu")):
        torch.manual_seed(seed)
        yield


def kaiming_convolutions(network: nn.Module) -> nn.Module:
    """Draw every convolution anew from N(0, 2 / (k^2 * channels out)), as ResNets are begun.

    Linear and BatchNorm layers stay as PyTorch begins them. Source: He et al. 2015, "Delving deep
    into rectifiers", equation 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


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


def digits_cnn(seed: int = 0, *, classes: int = 10, activation: Activation = nn.ReLU) -> nn.Module:
    """A small CNN for 8x8 grey images: (N, 1, 8, 8) in [0, 1] -> (N, classes) logits.

    A 4x4 convolution of stride 2 and a 3x3 one (32 and 64 channels, padding 1), two linear layers.
    The same `seed` gives the same weights; the global random state is left as found.
    """
    with seeded(seed, classes):
        return nn.Sequential(
            nn.Conv2d(1, 32, 4, stride=2, padding=1),
            activation(),
            nn.Conv2d(32, 64, 3, padding=1),
            activation(),
            nn.Flatten(),
            nn.Linear(1024, 128),
            activation(),
            nn.Linear(128, classes),
        )


def small_cnn(seed: int = 0, *, classes: int = 10, activation: Activation = nn.ReLU) -> nn.Module:
    """A small CNN for 28x28 grey images such as MNIST: (N, 1, 28, 28) in [0, 1] -> (N, classes).

    Two 4x4 convolutions of stride 2 (16 and 32 channels, padding 1), two linear layers. The same
    `seed` gives the same weights; the global random state is left as found.
    """
    with seeded(seed, classes):
        return nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            activation(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            activation(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 100),
            activation(),
            nn.Linear(100, classes),
        )


def paper_cnn(seed: int = 0, *, classes: int = 10, activation: Activation = nn.ReLU) -> nn.Module:
    """The SmallCNN of the LFR paper: (N, 1, 28, 28) in [0, 1] -> (N, classes) logits.

    Four 3x3 convolutions without padding (32, 32, 64, 64 channels), 2x2 max-pooling after the
    second and the fourth, three linear layers (200, 200, classes); no dropout. Weights begin as
    PyTorch begins them; the same `seed` gives the same ones, and the global random state is left
    as found. The architecture is that of Carlini and Wagner 2017, "Towards evaluating the
    robustness of neural networks", table 1.
    """
    with seeded(seed, classes):
        return nn.Sequential(
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
        )


def _two_convolutions(
    inputs: int, outputs: int, stride: int, activation: Activation
) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        activation(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
    ]


class BasicBlock(nn.Module):
    """act(F(x) + shortcut(x)), F two 3x3 convolutions with BatchNorm: (N, C, H, W) -> (N, D, ...).

    The shortcut is the identity, or a 1x1 convolution with BatchNorm (option B of He et al. 2016)
    where channels or resolution change.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        convolutions = _two_convolutions(inputs, outputs, stride, activation)
        self.body = nn.Sequential(*convolutions, nn.BatchNorm2d(outputs))
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


class PreActivationBlock(nn.Module):
    """F(a) + shortcut, a = act(BatchNorm(x)), F two 3x3 convolutions: (N, C, H, W) -> (N, D, ...).

    The shortcut is x itself, or a 1x1 convolution of a where channels or resolution change.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(inputs), activation())
        self.body = nn.Sequential(*_two_convolutions(inputs, outputs, stride, activation))
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's body to its shortcut."""
        activated = self.before(x)
        output: Tensor = self.body(activated)
        return output + (x if self.shortcut is None else self.shortcut(activated))


def _stages(
    block: Callable[[int, int, int, Activation], nn.Module],
    widths: Sequence[int],
    blocks: int,
    activation: Activation,
) -> list[nn.Module]:
    """`blocks` blocks for each width; from the second width on, the first one has stride 2."""
    layers, channels = [], widths[0]
    for stage, width in enumerate(widths):
        for index in range(blocks):
            layers.append(block(channels, width, 2 if stage and not index else 1, activation))
            channels = width
    return layers


def _resnet(blocks: int, classes: int, activation: Activation) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        activation(),
        *_stages(BasicBlock, (16, 32, 64), blocks, activation),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


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
    with seeded(seed, classes):
        network = kaiming_convolutions(_resnet(3, classes, activation))
    return normalised(network, mean, std)


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
    with seeded(seed, classes):
        network = _resnet(1, classes, activation)
    return normalised(network, mean, std)


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
    with seeded(seed, classes):
        network = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False),
            *_stages(PreActivationBlock, (64, 128, 256, 512), 2, activation),
            nn.BatchNorm2d(512),
            activation(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512, classes),
        )
        kaiming_convolutions(network)
    return normalised(network, mean, std)


# The names that the command line takes for --model.
BUILT_IN: dict[str, Factory] = {
    "digits-cnn": digits_cnn,
    "small-cnn": small_cnn,
    "paper-cnn": paper_cnn,
    "resnet-20": resnet_20,
    "preact-resnet-18": preact_resnet_18,
    "narrow-resnet": narrow_resnet,
}
