"""LFR's inner maximiser as an attack of torchattacks; import it from `art_lfr.torchattacks`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.core.arguments import check_integer, check_number
from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.flatness import find_least_flat_point
from art_lfr.core.geometry import Ball, Box, dual_norm, parse_norm, per_sample, sample_norm
from art_lfr.core.gradients import input_gradient
from art_lfr.core.modes import mode
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError
from art_lfr.torchattacks.reverse import HarmlessAttack


class LocalFlatnessAttack(HarmlessAttack):
    """The inner maximisation of LFR as an attack of torchattacks.

    It seeks the least flat point of the ball: max over ||x' - x||_p <= eps, inside [0, 1], of
    ||grad l(x')||_q with 1/p + 1/q = 1, by the ascent of `art_lfr.core.flatness`, and returns for
    each image the best point found, which is never flatter than the image itself. It does not seek
    misclassification.

    Names are those of torchattacks where it has them (eps, alpha, steps); lengths are in units of
    images in [0, 1]. They may be changed later, as attributes.

    Args:
        model: The model to attack.
        eps: Radius of the ball, >= 0.
        alpha: Length of a step (`step_size` elsewhere here); None: the norm's default, a multiple
            of eps / steps.
        steps: Ascent steps, >= 0.
        norm: "Linf", "L2" or "L1", or as elsewhere here: np.inf, 2, 1.
        estimator: "finite-difference" or "exact".
        radius: Finite-difference radius; None: the norm's default, a multiple of eps.
        seed: Seed of the noise that the ascent starts with.

    Shape: images (N, C, H, W) in [0, 1] and labels (N,) to images of the same shape.

    Raises:
        ValueError, TypeError: For values out of range, naming the parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 8 / 255,
        alpha: float | None = None,
        steps: int = 10,
        *,
        norm: float | str = "Linf",
        estimator: str = "finite-difference",
        radius: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__("LocalFlatnessAttack", model, seed)
        self.eps = eps
        self.alpha = alpha
        self.steps = steps
        self.norm = norm
        self.estimator = estimator
        self.radius = radius
        self.supported_mode = ["default"]
        self._settings()

    def _settings(self) -> LFRSettings:
        check_number("eps", self.eps)
        check_number("alpha", self.alpha, low_allowed=False, optional=True)
        check_integer("seed", self.seed, low=0)
        return LFRSettings(
            eps=self.eps,
            norm=_norm(self.norm),
            steps=self.steps,
            step_size=self.alpha,
            estimator=self.estimator,
            renew_every=1,  # a search, not a training: nothing is saved on
            # At eps 0 nothing is steered, and the default radius would have no scale.
            radius=1.0 if self.eps == 0 and self.radius is None else self.radius,
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The least flat point found around each image; the model runs in eval mode."""
        settings = self._settings()
        x, y = self.here(images), self.here(labels)
        ball = Ball(settings.eps, settings.norm, Box.from_bounds((0.0, 1.0), x))
        model, criterion = _Logits(self), Criterion()
        start = ball.start_point(x, torch.Generator().manual_seed(self.seed))
        with mode(model, training=False):
            found = find_least_flat_point(
                model, criterion, x, y, ball=ball, settings=settings, start=start
            )
            # The ascent starts beside x, where the loss may be flatter than at x.
            here = sample_norm(input_gradient(model, criterion, x, y), dual_norm(ball.p))
        return torch.where(per_sample(found.flatness > here, x), found.point, x)


class _Logits(nn.Module):
    """A model as its attack sees it: with the normalisation that the user has set."""

    def __init__(self, attack: LocalFlatnessAttack) -> None:
        super().__init__()
        self.network = attack.model
        self._get_logits = attack.get_logits

    def forward(self, x: Tensor) -> Tensor:
        return logits_of(self._get_logits(x))


def _norm(norm: Any) -> float:
    """p of "Linf", "L2", "L1", or of what `parse_norm` takes."""
    try:
        return parse_norm(norm[1:] if isinstance(norm, str) and norm[:1] == "L" else norm)
    except ValueError:
        raise UsageError(
            f'norm is {norm!r}; allowed: "Linf", "L2", "L1", np.inf, 2 and 1'
        ) from None
