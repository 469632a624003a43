"""The one place where an attack is run, and its examples are checked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from art_lfr.attacks.named import Attacked, NamedAttack
from art_lfr.attacks.target import Target
from art_lfr.attacks.threat import ThreatModel
from art_lfr.core.geometry import Box
from art_lfr.core.randomness import seed_global_generators


@dataclass(frozen=True)
class AttackResult:
    """What an attack did to the first n images.

    `correct` (n,) says which are still classified correctly; `adversarial` (n, ...) are its
    examples, x itself where none was sought; `distance` (n,) their distances where the model is
    wrong there, infinite elsewhere, NaN for errors without an attack.
    """

    correct: Tensor
    adversarial: Tensor
    distance: Tensor
    seconds: float
    details: dict[str, Any]


def run_attack(attack: NamedAttack, target: Target, clean: Tensor) -> AttackResult:
    """Attack the samples that are correct without an attack (`clean`, shape (N,)).

    Raises RuntimeError for examples of the wrong shape, not finite, outside the box, or, unless
    the attack is minimal, outside its threat model: counting them would overstate the attack.
    """
    clean = clean[: attack.images]
    x = target.x[: len(clean)]
    survived, adversarial = clean.clone(), x.clone()
    distance = torch.full((len(x),), float("nan"), dtype=torch.float64)
    details: dict[str, Any] = {}
    seed_global_generators(target.seed)
    start = time.perf_counter()
    if bool(clean.any()):
        labels = target.y[: len(clean)][clean]
        found = attack.run(x[clean], labels)
        found, details = found if isinstance(found, Attacked) else (found, {})
        found = found.to(x.dtype)
        check_feasible(attack, found, x[clean], target.ball.box)
        wrong = ~target.correct(found, labels)
        counts = wrong & attack.threat.contains(found, x[clean])
        survived[clean] = ~counts
        adversarial[clean] = found
        infinite = torch.full_like(distance[clean], float("inf"))
        distance[clean] = torch.where(wrong, attack.threat.distance(found, x[clean]), infinite)
    return AttackResult(survived, adversarial, distance, time.perf_counter() - start, details)


def check_feasible(attack: NamedAttack, adversarial: Tensor, x: Tensor, box: Box) -> None:
    """Raise RuntimeError unless every example is one that the attack may return."""
    who = f"attack {attack.name!r} returned"
    if adversarial.shape != x.shape:
        raise RuntimeError(
            f"{who} shape {tuple(adversarial.shape)} for inputs of shape {tuple(x.shape)}"
        )
    if not bool(adversarial.isfinite().all()):
        raise RuntimeError(f"{who} NaN or infinite values")
    threat: ThreatModel = attack.threat
    if not attack.minimal and not bool(threat.contains(adversarial, x).all()):
        farthest = float(threat.distance(adversarial, x).max())
        raise RuntimeError(
            f"{who} an example at distance {farthest:g} (norm {threat.p:g}); allowed: at most "
            f"eps, {threat.eps:g} (is the attack's own eps or norm another?)"
        )
    if not box.contains(adversarial):
        raise RuntimeError(
            f"{who} values from {float(adversarial.min()):g} to {float(adversarial.max()):g}, "
            "outside the valid box"
        )
