"""Attacks on one model in one form, whichever library they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from art_lfr.attacks.target import Target
from art_lfr.attacks.threat import ThreatModel
from art_lfr.errors import UsageError
from art_lfr.storage.fingerprint import attacks_inside


class Attacked(NamedTuple):
    """Adversarial examples, shape of x, and what else an attack has to tell (JSON types)."""

    adversarial: Tensor
    details: dict[str, Any]


# (raw inputs, index labels), both on the CPU -> adversarial examples of the same shape
Attack: TypeAlias = Callable[[Tensor, Tensor], "Tensor | Attacked"]


@dataclass(frozen=True)
class NamedAttack:
    """An attack as the runner takes it.

    Attributes:
        name: Name of its row.
        run: The attack.
        threat: Which of its examples count.
        minimal: It seeks the closest example: one outside `threat` is a sample that stands. An
            example of any other attack outside `threat` is an error in its settings.
        images: It runs on the first so many images only; None: on all.
        black_box: It uses no gradients.
        parameters: What tells it from another of the same name, for resuming.
    """

    name: str
    run: Attack
    threat: ThreatModel
    minimal: bool = False
    images: int | None = None
    black_box: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackSpec:
    """An attack of a user's with a threat model of its own, or on fewer images.

    Attributes:
        attack: A name, or an attack object of ART, torchattacks or foolbox.
        eps: Radius in which its examples count, raw units (norm 0: number of changed values).
        norm: np.inf, 2, 1 or 0; None: that of the evaluation.
        images: Run it on the first so many images.
    """

    attack: object
    eps: float | None = None
    norm: float | str | None = None
    images: int | None = None


def art_attack(attack: Any, target: Target) -> Attack:
    """An ART evasion attack as a callable on tensors."""
    from art.attacks.evasion import AutoAttack, SaliencyMapMethod

    if getattr(attack, "targeted", False) is True and not isinstance(attack, AutoAttack):
        raise UsageError(
            f"attacks has a {type(attack).__name__} with targeted True; allowed: untargeted "
            "attacks, as the labels given are the true ones"
        )
    # ART's JSMA takes labels as targets: given the true ones it would do nothing. Without labels
    # it draws wrong ones.
    return partial(_generate, attack, target, not isinstance(attack, SaliencyMapMethod))


def _generate(attack: Any, target: Target, labels: bool, x: Tensor, y: Tensor) -> Tensor:
    one_hot = np.eye(target.classes, dtype=np.float32)[y.numpy()]
    inside = [(part, dict(vars(part))) for part in attacks_inside(attack)]
    try:
        # ART may write to what it is given.
        found = attack.generate(x=x.numpy().copy(), y=one_hot if labels else None)
    finally:
        # ART's AutoAttack and torchattacks change those that they are made of: the same object
        # would not be known again.
        for part, before in inside:
            vars(part).clear()
            vars(part).update(before)
    return torch.as_tensor(found)
