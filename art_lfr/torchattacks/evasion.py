"""An attack of torchattacks as an evasion attack of ART."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.attacks.evasion import (
    UnitBoxEvasion,
)
from art_lfr.attacks.target import UnitBoxModule, untouched
from art_lfr.core.arguments import check_flag, check_type
from art_lfr.core.imports import require
from art_lfr.errors import UsageError

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

    The classifier is attacked, whichever model the torchattacks object was made with, unless
    `own_model`. During a run the object has a model from images in [0, 1], which stand for the
    classifier's `clip_values`, to logits, with the classifier's preprocessing inside. So eps and
    all other lengths of the object are in units of the width of `clip_values` (8/255 for (0, 255)
    is 8 in raw units), and its own normalisation is off. Afterwards the object has its model,
    device, normalisation and mode again, and the classifier its modes, flags, `.grad` and buffers,
    also where the attack raises.

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
        own_model: The object attacks the model that it was made with, of images in [0, 1], and the
            classifier gets its examples: a transfer attack.

    Raises:
        ImportError: On import of this module, where torchattacks is missing.
        TypeError, ValueError: For bad arguments, naming the parameter.
    """

    _library = "torchattacks"

    def __init__(
        self,
        classifier: Any,
        attack: Any,
        *,
        targeted: bool = False,
        batch_size: int = 128,
        seed: int | None = None,
        own_model: bool = False,
    ) -> None:
        check_flag("own_model", own_model)
        self.own_model = own_model
        super().__init__(classifier, attack, targeted=targeted, batch_size=batch_size, seed=seed)

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
        with ExitStack() as stack:
            if not self.own_model:
                stack.enter_context(_aimed_at(self.attack, module, images.device))
            else:
                stack.enter_context(_state_kept(self.attack))
                if isinstance(self.attack.model, nn.Module):
                    stack.enter_context(untouched(self.attack.model, images.device))
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
    with _state_kept(attack) as parts:
        try:
            for part in parts:
                _replace(part, model, module)
                vars(part).update(device=device, _normalization_applied=None)
            yield
        finally:
            # Also from attacks that were made, and references that were taken, on the way.
            for part in _family(attack):
                _replace(part, module, model)


@contextmanager
def _state_kept(attack: Any) -> Iterator[list[Any]]:
    """Gives an attack object and those in it, which have their model and mode again afterwards."""
    states = [
        (part, {name: vars(part)[name] for name in _STATE if name in vars(part)})
        for part in _family(attack)
    ]
    try:
        yield [part for part, _ in states]
    finally:
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
