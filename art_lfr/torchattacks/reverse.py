"""An evasion attack of ART as an attack of torchattacks; import it from `art_lfr.torchattacks`."""

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
from art_lfr.attacks.evasion import INSTEAD, own_randomness, untouched
from art_lfr.attacks.unit_box import UnitBox
from art_lfr.core.arguments import check_integer, check_type
from art_lfr.core.geometry import per_sample
from art_lfr.core.imports import require
from art_lfr.core.modes import device_of
from art_lfr.errors import WrongTypeError

_Attack: Any = require("torchattacks.attack", "torchattacks").Attack


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
        device = device_of(self.model, inputs)
        try:
            with own_randomness(self.seed, device), untouched(self.model, device):
                found: Tensor = super().__call__(inputs, labels, *a, **k)
            return found
        finally:
            # torchattacks leaves it switched off where an attack raises.
            self._normalization_applied = applied

    def here(self, tensor: Tensor) -> Tensor:
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
    which it gave NaN is returned as it came.

    Raises:
        ValueError, TypeError: For bad arguments, or an attack that returns something else.
    """

    def __init__(
        self, attack: Any, model: nn.Module | None = None, *, seed: int | None = None
    ) -> None:
        allowed = "an art.attacks.EvasionAttack"
        check_type("attack", attack, EvasionAttack, allowed)
        check_integer("seed", seed, low=0, optional=True)
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
            given = None if labels is None else self.here(labels)
            labels = self.get_target_label(self.here(images), given)
        unit = images.detach().cpu().float()
        box = adapter.box(unit)
        unit_box = UnitBox.of(box, "torchattacks", INSTEAD)
        start = box.clip(unit_box.low + unit_box.width * unit)
        # ART's JSMA takes all labels for targets. Without labels it draws wrong ones.
        ignored = isinstance(attack, SaliencyMapMethod) and not self.targeted
        y = None
        if labels is not None and not ignored:
            classes = int(adapter.classifier.nb_classes)
            y = np.eye(classes, dtype=np.float32)[labels.detach().cpu().numpy()]
        with untouched(adapter.module, adapter.device), _targeted(attack, self.targeted):
            # A copy: ART may write to what it is given.
            found = attack.generate(x=start.numpy().copy(), y=y)
        if not isinstance(found, np.ndarray) or found.shape != tuple(start.shape):
            raise WrongTypeError(
                f"attack is a {type(attack).__name__}, which returned "
                f"{getattr(found, 'shape', type(found).__name__)} for images of shape "
                f"{tuple(start.shape)}; allowed: attacks that return an image for each image"
            )
        raw = torch.as_tensor(found, dtype=torch.float32)
        finite = per_sample(raw.flatten(1).isfinite().all(dim=1), raw)
        adversarial = torch.where((raw == start) | ~finite, unit, unit_box.to_unit(raw))
        return adversarial.to(images)


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
    if before == targeted or "targeted" not in attack.attack_params or not _takes_targets(attack):
        yield
        return
    attack.set_params(targeted=targeted)
    try:
        yield
    finally:
        attack.set_params(targeted=before)
