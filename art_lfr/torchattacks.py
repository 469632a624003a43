"""torchattacks in ART, and ART in torchattacks.

`TorchattacksEvasion` makes an evasion attack of ART out of any torchattacks object;
`LocalFlatnessAttack` and `ARTAttack` are attacks of torchattacks; `unit_model` is a classifier as
these libraries take a model.
"""

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
    UnitBoxEvasion,
    finite_samples,
    own_randomness,
    unit_model,
    untouched,
)
from art_lfr.attacks.target import UnitBox, UnitBoxModule, parse_library_norm
from art_lfr.core.arguments import check_integer, check_number, check_type
from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.flatness import find_least_flat_point
from art_lfr.core.geometry import Ball, Box, dual_norm, per_sample, sample_norm
from art_lfr.core.gradients import input_gradient
from art_lfr.core.imports import require
from art_lfr.core.modes import device_of, mode
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError, WrongTypeError

__all__ = ["ARTAttack", "LocalFlatnessAttack", "TorchattacksEvasion", "unit_model"]

torchattacks: Any = require("torchattacks", "torchattacks")
_Attack: Any = torchattacks.attack.Attack
BY_LABEL = "targeted(label)"
# What a run changes of an attack object.
_STATE = (
    "model",
    "device",
    "_normalization_applied",
    "attack_mode",
    "targeted",
    "_target_map_function",
)


class TorchattacksEvasion(UnitBoxEvasion):
    """Any attack of torchattacks as an evasion attack of ART.

    The classifier is attacked, whichever model the torchattacks object was made with. During a run
    the object has a model from images in [0, 1], which stand for the classifier's `clip_values`, to
    logits, with the classifier's preprocessing inside. So eps and all other lengths of the object
    are in units of the width of `clip_values` (8/255 for (0, 255) is 8 in raw units), and its own
    normalisation is off. Afterwards the object has its model, device, normalisation and mode again,
    and the classifier its modes, flags, `.grad` and buffers, also where the attack raises.

    Args:
        classifier: A `PyTorchClassifier` with finite `clip_values`, equally wide for all features.
        attack: An attack object of torchattacks. One in a targeted mode of its own (random, least
            likely, by a function) stays in it and gets the true labels. An attack that keeps its
            model elsewhere than in attributes, its own or those of attacks inside it, attacks that
            model.
        targeted: y of `generate` are labels to reach, whichever mode the object is in.
        batch_size: Samples at a time.
        seed: Seeds torch's, NumPy's and Python's generators for each call of `generate`. None: by
            a number from torch's global generator, so that calls differ. Either way the
            generators are left as they were, except for that number; the object's own seeds (APGD,
            FAB, Square) still apply.

    Raises:
        ImportError: On import of this module, where torchattacks is missing.
        TypeError, ValueError: For bad arguments, naming the parameter.
    """

    _library = "torchattacks"

    def _check_params(self) -> None:
        super()._check_params()
        check_type("attack", self.attack, _Attack, "an attack object of torchattacks")
        kind = type(self.attack).__name__
        is_lgv = isinstance(self.attack, torchattacks.LGV)
        # LGV lists "targeted", but has no way to reach given labels.
        if self.targeted and ("targeted" not in self.attack.supported_mode or is_lgv):
            raise UsageError(
                f"targeted is True, which {kind} does not support; allowed: False, or an attack "
                'with "targeted" in its supported_mode'
            )
        if not self.targeted and self.attack.attack_mode == BY_LABEL:
            raise UsageError(
                f"targeted is False with a {kind} in mode {BY_LABEL!r}, which takes all labels "
                "for targets; allowed: True, or an attack after set_mode_default()"
            )
        # Left to itself it would now train the model that it is given.
        if is_lgv and not self.attack.list_models:
            raise UsageError(
                "attack is an LGV without models; allowed: one after collect_models() or "
                "load_models()"
            )

    def _run_batch(
        self, module: UnitBoxModule, images: Tensor, labels: Tensor, **data: Tensor
    ) -> Tensor:
        with _aimed_at(self.attack, module, images.device):
            if self.targeted:
                self.attack.set_mode_targeted_by_label(quiet=True)
            examples: Tensor = self.attack(images, labels)
        return examples


@contextmanager
def _aimed_at(attack: Any, module: nn.Module, device: torch.device) -> Iterator[None]:
    """An attack object, and those in it, with another model of images in [0, 1], for a while.

    `set_model` would not do: it also replaces models that are no copy of the attack's own, such
    as the ensemble of LGV, and leaves alone what is not called `model`.
    """
    model = attack.model
    states = [
        (part, {name: vars(part)[name] for name in _STATE if name in vars(part)})
        for part in _family(attack)
    ]
    try:
        for part, _ in states:
            _replace(part, model, module)
            vars(part).update(device=device, _normalization_applied=None)
        yield
    finally:
        # Also from attacks that were made, and references that were taken, on the way.
        for part in _family(attack):
            _replace(part, module, model)
        for part, state in states:
            vars(part).update(state)


def _replace(part: Any, old: Any, new: Any) -> None:
    """Put `new` where an attack refers to `old`, past its costly and recording `__setattr__`."""
    for name, value in list(vars(part).items()):
        # None, as the model of an attack that was made for the adapter, may stand for anything.
        if value is old and (name == "model" or isinstance(old, nn.Module)):
            vars(part)[name] = new


def _family(attack: Any) -> list[Any]:
    """The attack and all attacks in its attributes, at any depth, each once."""
    family: list[Any] = []
    waiting: list[Any] = [attack]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Attack):
            if not any(value is part for part in family):
                family.append(value)
                waiting.extend(vars(value).values())
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return family


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
            classes = int(adapter.classifier.nb_classes)
            y = np.eye(classes, dtype=np.float32)[labels.detach().cpu().numpy()]
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
            norm=parse_library_norm(self.norm),
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
        x, y = self.on_device(images), self.on_device(labels)
        ball = Ball(settings.eps, settings.norm, Box.from_bounds((0.0, 1.0), x))
        model, criterion = _Logits(self), Criterion()
        start = ball.start_point(x, torch.Generator().manual_seed(self.seed))
        with mode(model, training=False):
            best = find_least_flat_point(
                model, criterion, x, y, ball=ball, settings=settings, start=start
            )
            # The ascent starts beside x, where the loss may be flatter than at x.
            at_x = sample_norm(input_gradient(model, criterion, x, y), dual_norm(ball.p))
        return torch.where(per_sample(best.flatness > at_x, x), best.point, x)


class _Logits(nn.Module):
    """A model as its attack sees it: with the normalisation that the user has set."""

    def __init__(self, attack: LocalFlatnessAttack) -> None:
        super().__init__()
        self.network = attack.model
        self._get_logits = attack.get_logits

    def forward(self, x: Tensor) -> Tensor:
        return logits_of(self._get_logits(x))
