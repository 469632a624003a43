"""Networks of the experiments that the package has no name for."""

from __future__ import annotations

import torch
from torch import nn

from art_lfr.models import digits_cnn, narrow_resnet


def digits_softplus() -> nn.Module:
    """The digits network with a smooth activation: its loss has curvature everywhere.

    The weights follow the global generator, which a run seeds.
    """
    return digits_cnn(int(torch.randint(2**31, ())), activation=_softplus)


def narrow_resnet_softplus() -> nn.Module:
    """The narrow ResNet with the same smooth activation."""
    return narrow_resnet(int(torch.randint(2**31, ())), activation=_softplus)


def narrow_resnet_silu() -> nn.Module:
    """The narrow ResNet with SiLU in place of ReLU."""
    return narrow_resnet(int(torch.randint(2**31, ())), activation=nn.SiLU)


def _softplus() -> nn.Module:
    return nn.Softplus(beta=10)
