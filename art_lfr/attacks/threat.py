"""Threat models: which adversarial examples count, and how far one is from its original."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from art_lfr.core.arguments import check_number
from art_lfr.core.geometry import parse_norm, sample_norm

# An example may leave the ball by this share of eps, and by this many units in the last place of
# the largest value for each coordinate that the norm sums over.
BALL_SLACK = 1e-4
ROUNDING_ULPS = 8


@dataclass(frozen=True)
class ThreatModel:
    """Perturbations with ||x' - x||_p <= eps, in raw units; p = 0 counts changed values.

    Raises ValueError or TypeError for anything but p in {0, 1, 2, inf} and eps > 0.
    """

    p: float
    eps: float

    def __post_init__(self) -> None:
        if self.p != 0:
            parse_norm(self.p)
        check_number("eps", self.eps, low_allowed=False)

    @property
    def label(self) -> str:
        """As printed: "Linf 0.3", "L2 2", "L0 12"."""
        return f"L{'inf' if self.p == math.inf else f'{self.p:g}'} {self.eps:.4g}"

    def distance(self, adversarial: Tensor, x: Tensor) -> Tensor:
        """||adversarial - x||_p of each sample, shape (N,), in float64."""
        difference = adversarial.double() - x.double()
        if self.p == 0:
            return (difference != 0).flatten(1).sum(dim=1).double()
        return sample_norm(difference, self.p)

    def contains(self, adversarial: Tensor, x: Tensor) -> Tensor:
        """Whether each sample lies in the ball, shape (N,), up to rounding."""
        if self.p == 0:
            return self.distance(adversarial, x) <= self.eps
        scale = max(float(x.abs().max()), self.eps)
        summed = 1.0 if self.p == math.inf else x[0].numel() ** (1 / self.p)
        slack = BALL_SLACK * self.eps + ROUNDING_ULPS * torch.finfo(x.dtype).eps * scale * summed
        return self.distance(adversarial, x) <= self.eps + slack
