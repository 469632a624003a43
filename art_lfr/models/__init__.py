"""Networks for the demo, the command line, the examples and the experiments.

All take images in [0, 1] and give logits. A factory's `seed` fixes the first weights, and the
global random state is left as found; `activation` makes the layer after each convolution and each
hidden linear layer, such as `torch.nn.SiLU`, where the default is `torch.nn.ReLU`.

`load_network` makes a trained network from a file, `network_info` says what the file knows of it.
"""

from __future__ import annotations

from art_lfr.models.files import Preprocessed, load_network, make_network, save_network
from art_lfr.models.networks import (
    BUILT_IN,
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
from art_lfr.storage.info import NetworkInfo, network_info

__all__ = [
    "BUILT_IN",
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "Activation",
    "Factory",
    "NetworkInfo",
    "Normalise",
    "Preprocessed",
    "digits_cnn",
    "load_network",
    "make_network",
    "narrow_resnet",
    "network_info",
    "paper_cnn",
    "preact_resnet_18",
    "resnet_20",
    "save_network",
    "small_cnn",
]
