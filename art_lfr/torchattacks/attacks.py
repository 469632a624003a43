"""Attacks of torchattacks: one around any of ART's, and the inner maximisation of LFR."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from art.attacks import EvasionAttack
from art.attacks.evasion import AutoAttack, SaliencyMapMethod
from torch import Tensor, nn

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.attacks.evasion import (
    INSTEAD,
    finite_samples,
    own_randomness,
)
from art_lfr.attacks.target import UnitBox, untouched
from art_lfr.core.arguments import check_number, check_seed, check_type
from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.flatness import find_least_flat_point
from art_lfr.core.geometry import Ball, Box, dual_norm, per_sample, sample_norm
from art_lfr.core.gradients import input_gradient
from art_lfr.core.imports import require
from art_lfr.core.modes import device_of, mode
from art_lfr.core.names import parse_norm
from art_lfr.core.samples import as_tensor, check_inputs, loss_targets, type_for
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import WrongTypeError

torchattacks: Any = require("torchattacks", "torchattacks")
_Attack: Any = torchattacks.attack.Attack


class HarmlessAttack(_Attack):
    """A torchattacks attack after which its model and the random states are as before.

    torchattacks itself puts the whole model in train mode if its root was in it.
    """

    _normalization_applied: Any

    def __init__(self, name: str, model: nn.Module, seed: int | None) -> None:
        super().__init__(name, model)
        self.seed: Any = seed

    def __call__(self, inputs: Tensor, labels: Tensor | None = None, *a: Any, **k: Any) -> Tensor:
        """The attack on inputs, which are normalised where `set_normalization_used` was called."""
        applied = self._normalization_applied
        inputs = as_tensor("inputs", inputs)
        check_inputs("inputs", inputs)
        if not applied:
            check_inputs("inputs", inputs, Box.from_bounds((0.0, 1.0), inputs))
        device = device_of(self.model, inputs)
        try:
            with own_randomness(self.seed, device), untouched(self.model, device):
                examples: Tensor = super().__call__(inputs, labels, *a, **k)
            return examples
        finally:
            # torchattacks leaves it switched off where an attack raises.
            self._normalization_applied = applied

    def on_device(self, tensor: Tensor) -> Tensor:
        """A copy on the attack's device, which is None for a model without parameters."""
        return tensor.detach().clone().to(self.device or tensor.device)


class ARTAttack(HarmlessAttack):
    """An evasion attack of ART as an attack of torchattacks.

    It attacks its own estimator. Images in [0, 1] stand for the estimator's `clip_values`, before
    its preprocessing, so eps of the ART attack stays in its raw units.

    Args:
        attack: An ART `EvasionAttack` on a `PyTorchClassifier` with finite `clip_values`, equally
            wide for all features, which returns images. One that is targeted starts in the mode
            of `set_mode_targeted_by_label`.
        model: The model of the attacks beside it: `torchattacks.MultiAttack` wants the same
            object, and judges by it which images are done. None: the network in the estimator,
            which is right where that takes images in [0, 1] as they are. Elsewhere make one for
            all with `unit_model(classifier)`.
        seed: As in `TorchattacksEvasion`.

    Shape: images (N, C, H, W) in [0, 1] and labels (N,), or None, to images of the same shape, on
    their device. A value that the ART attack left alone is exactly the one given; an image for
    which it gave NaN is returned unchanged.

    Raises:
        ValueError, TypeError: For bad arguments, or an attack that returns something else.
    """

    def __init__(
        self, attack: Any, model: nn.Module | None = None, *, seed: int | None = None
    ) -> None:
        allowed = "an art.attacks.EvasionAttack"
        check_type("attack", attack, EvasionAttack, allowed)
        check_seed("seed", seed, optional=True)
        adapter = ClassifierAdapter(attack.estimator, "the estimator of attack")
        super().__init__(type(attack).__name__, adapter.network if model is None else model, seed)
        self.art_attack = attack
        self.device = adapter.device
        self.supported_mode = ["default"]
        if _takes_targets(attack):
            self.supported_mode.append("targeted")
            if attack.targeted:
                self.set_mode_targeted_by_label(quiet=True)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the ART attack makes of the images."""
        attack = self.art_attack
        adapter = ClassifierAdapter(attack.estimator, "the estimator of attack")
        if self.targeted:
            copied = None if labels is None else self.on_device(labels)
            labels = self.get_target_label(self.on_device(images), copied)
        unit = images.detach().cpu().float()
        box = adapter.box(unit)
        unit_box = UnitBox.of(box, "torchattacks", INSTEAD)
        start = box.clip(unit_box.low + unit_box.width * unit)
        # ART's JSMA takes all labels for targets. Without labels it draws wrong ones.
        ignored = isinstance(attack, SaliencyMapMethod) and not self.targeted
        y = None
        if labels is not None and not ignored:
            indices = adapter.labels(labels, len(start), name="labels")
            y = np.eye(int(adapter.classifier.nb_classes), dtype=np.float32)[indices.numpy()]
        with untouched(adapter.module, adapter.device), _targeted(attack, self.targeted):
            # A copy: ART may write to what it is given.
            examples = attack.generate(x=start.numpy().copy(), y=y)
        if not isinstance(examples, np.ndarray) or examples.shape != tuple(start.shape):
            raise WrongTypeError(
                f"attack is a {type(attack).__name__}, which returned "
                f"{getattr(examples, 'shape', type(examples).__name__)} for images of shape "
                f"{tuple(start.shape)}; allowed: attacks that return an image for each image"
            )
        raw = torch.as_tensor(examples, dtype=torch.float32)
        same = (raw == start) | ~finite_samples(raw)
        return torch.where(same, unit, unit_box.to_unit(raw)).to(images)


def _takes_targets(attack: Any) -> bool:
    """Whether labels of the attack can be targets."""
    # "targeted" of ART's AutoAttack means: try all targets too. JSMA needs no switch.
    if isinstance(attack, AutoAttack):
        return False
    return "targeted" in attack.attack_params or isinstance(attack, SaliencyMapMethod)


@contextmanager
def _targeted(attack: Any, targeted: bool) -> Iterator[None]:
    """An ART attack switched to targets or away from them for a while."""
    before = attack.targeted
    switch = "targeted" in attack.attack_params and _takes_targets(attack) and before != targeted
    try:
        if switch:
            attack.set_params(targeted=targeted)
        yield
    finally:
        if switch:
            attack.set_params(targeted=before)


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
        alpha: Length of a step (`step_size` elsewhere here); None: 2 eps / steps, and at most
            0.4 eps.
        steps: Ascent steps, >= 0.
        norm: "Linf", "L2" or "L1", or as elsewhere here: np.inf, 2, 1.
        estimator: "finite-difference" or "exact".
        radius: Finite-difference radius; None: eps / 4.
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
        check_seed("seed", self.seed)
        return LFRSettings(
            eps=self.eps,
            norm=parse_norm(self.norm),
            steps=self.steps,
            step_size=self.alpha,
            estimator=self.estimator,
            renew_every=1,  # a search, not a training: nothing is saved on
            # At eps 0 nothing is steered, and the default radius would have no scale.
            lam=1.0,  # of no effect on where it ends
            radius=1.0 if self.eps == 0 and self.radius is None else self.radius,
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The least flat point found around each image; the model runs in eval mode."""
        settings = self._settings()
        x = self.on_device(images)
        if x.dtype == torch.float64:  # as `lfr_loss` does
            x = x.to(type_for(self.model, x))
        ball = Ball(settings.eps, settings.norm, Box.from_bounds((0.0, 1.0), x))
        model, criterion = _Logits(self), Criterion()
        y = loss_targets("labels", labels, model, criterion, x).to(x.device)
        start = ball.start_point(x, torch.Generator().manual_seed(int(self.seed)))
        with mode(model, training=False):
            best = find_least_flat_point(
                model, criterion, x, y, ball=ball, settings=settings, start=start
            )
            # The ascent starts beside x, where the loss may be flatter than at x.
            at_x = sample_norm(input_gradient(model, criterion, x, y), dual_norm(ball.p))
        return torch.where(per_sample(best.flatness > at_x, x), best.point, x).to(images.dtype)


class _Logits(nn.Module):
    """A model as its attack sees it: with the normalisation that the user has set."""

    def __init__(self, attack: LocalFlatnessAttack) -> None:
        super().__init__()
        self.network = attack.model
        self._get_logits = attack.get_logits

    def forward(self, x: Tensor) -> Tensor:
        return logits_of(self._get_logits(x))
