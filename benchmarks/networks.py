"""Networks of the experiments that the package has no name for."""

from __future__ import annotations

import torch
from torch import nn

from art_lfr.models import digits_cnn


def digits_softplus() -> nn.Module:
    """The digits network with a smooth activation: its loss has curvature everywhere.

    The weights follow the global generator, which a run seeds.
    """
    seed = int(torch.randint(2**31, ()))
    return digits_cnn(seed, activation=lambda: nn.Softplus(beta=10))
