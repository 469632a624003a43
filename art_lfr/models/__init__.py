"""Networks for the demo, the command line, the examples and the experiments.

All take images in [0, 1] and give logits. A factory's `seed` fixes the first weights, and the
global random state is left as found; `activation` makes the layer after each convolution and each
hidden linear layer, such as `torch.nn.SiLU`, where the default is `torch.nn.ReLU`.
"""

from __future__ import annotations

from art_lfr.models.networks import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    Activation,
    Factory,
    Normalise,
    digits_cnn,
    narrow_resnet,
    paper_cnn,
    preact_resnet_18,
    resnet_20,
    small_cnn,
)
from art_lfr.models.shipped import load_network

# The names that the command line takes for --model.
BUILT_IN: dict[str, Factory] = {
    "digits-cnn": digits_cnn,
    "small-cnn": small_cnn,
    "paper-cnn": paper_cnn,
    "resnet-20": resnet_20,
    "preact-resnet-18": preact_resnet_18,
    "narrow-resnet": narrow_resnet,
}

__all__ = [
    "BUILT_IN",
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "Activation",
    "Factory",
    "Normalise",
    "digits_cnn",
    "load_network",
    "narrow_resnet",
    "paper_cnn",
    "preact_resnet_18",
    "resnet_20",
    "small_cnn",
]
