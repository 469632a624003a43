"""The attacks that have a name here, and the sets of them that are called presets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from art_lfr.attacks.named import Attacked, NamedAttack, art_attack, dealt_attack
from art_lfr.attacks.target import Target, ThreatModel, UnitBox, classifier_of
from art_lfr.autoattack.backend import FEWEST_CLASSES, backend
from art_lfr.autoattack.run import SQUARE_QUERIES, attack_target, auto_attack
from art_lfr.core.names import AUTO_ATTACK_PARTS, PRESETS, find_attack

PGD_STEPS = 40
# Schott et al. (2019), where the pointwise attack is from: 12 of MNIST's 784 pixels.
POINTWISE_SHARE = 12 / 784
JSMA_GAMMA = 0.4
# The pointwise attack takes seconds for each image.
POINTWISE_IMAGES = 20


def named_attacks(name: str, target: Target, state_dir: Path | None) -> list[NamedAttack]:
    """The attacks of a preset, or the one of that name. Raises ValueError naming `attacks`."""
    name = find_attack(name)
    attacks = []
    for single in PRESETS.get(name, (name,)):
        if single == "APGD-T" and target.classes < FEWEST_CLASSES["apgd-t"]:
            single = "APGD-CE"  # its loss needs no fourth class
        if single == "AutoAttack":
            attacks.append(_whole_auto_attack(target, state_dir))
        elif single in AUTO_ATTACK_PARTS:
            attacks.append(_part_of_auto_attack(single, target))
        else:
            attacks.append(replace(_MAKERS[single](target), name=single))
    return attacks


def _l2_threat(target: Target) -> ThreatModel:
    """The l2 ball beside the ball of the evaluation.

    Its radius eps d^(1/4 - 1/(2 p)) is the geometric mean of those of the largest l2 ball inside
    and the smallest around: 1.6 for MNIST at linf 0.3, eps itself for p = 2.
    """
    size = target.x[0].numel()
    return ThreatModel(2.0, target.ball.eps * size ** (0.25 - 0.5 / target.ball.p))


def _from_art(attack: Any, target: Target, **keywords: Any) -> NamedAttack:
    keywords = {"threat": target.threat, "name": "", **keywords}
    return NamedAttack(run=art_attack(attack, target), parameters={"object": attack}, **keywords)


def _in_ball(kind: str, target: Target, passes: int | None = None, **settings: Any) -> NamedAttack:
    """ART's attack of that class name, in the ball of the evaluation."""
    from art.attacks import evasion
    from art.utils import random_sphere

    p = target.ball.p
    attack = getattr(evasion, kind)(
        classifier_of(target),
        norm=p if p == math.inf else int(p),
        eps=target.ball.eps,
        batch_size=target.batch_size,
        **settings,
    )

    def skip(size: int) -> None:
        """Draw the random starts of a batch, as ART does: the only random numbers of these."""
        for _ in range(settings.get("num_random_init", 0)):
            random_sphere(size, target.x[0].numel(), attack.eps, attack.norm)

    named = _from_art(attack, target, passes=passes)
    return replace(named, run=dealt_attack(art_attack(attack, target), target, skip), dealt=True)


def _pgd(target: Target, step: float) -> NamedAttack:
    """ART's PGD: 40 steps of `step` eps from one random start."""
    return _in_ball(
        "ProjectedGradientDescent",
        target,
        eps_step=step * target.ball.eps,
        passes=PGD_STEPS,
        max_iter=PGD_STEPS,
        num_random_init=1,
        verbose=False,
    )


def _momentum_pgd(target: Target) -> NamedAttack:
    """ART's momentum iterative method: 40 steps of eps / 30, decay 0.1, as the authors'."""
    return _in_ball(
        "MomentumIterativeMethod",
        target,
        eps_step=target.ball.eps / 30,
        passes=PGD_STEPS,
        max_iter=PGD_STEPS,
        decay=0.1,
        verbose=False,
    )


def _jsma(target: Target) -> NamedAttack:
    """ART's saliency map method towards random wrong classes, at most 40 % of the values."""
    from art.attacks.evasion import SaliencyMapMethod

    width = UnitBox.of(target.ball.box, "JSMA", "other attacks").width
    attack = SaliencyMapMethod(
        classifier_of(target),
        theta=width,
        gamma=JSMA_GAMMA,
        batch_size=target.batch_size,
        verbose=False,
    )
    allowed = max(1, math.floor(JSMA_GAMMA * target.x[0].numel()))
    # ART changes two values at a time and may end above the share: such examples do not count.
    return _from_art(attack, target, threat=ThreatModel(0.0, allowed), minimal=True)


def _from_foolbox(kind: str, target: Target, threat: ThreatModel, **settings: Any) -> NamedAttack:
    """foolbox's attack of that class name, which seeks the closest example."""
    from art_lfr.foolbox import FoolboxEvasion, foolbox

    attack = getattr(foolbox.attacks, kind)(**settings)
    evasion = FoolboxEvasion(classifier_of(target), attack, batch_size=target.batch_size)
    return _from_art(evasion, target, threat=threat, minimal=True)


def _pointwise(target: Target) -> NamedAttack:
    """foolbox's pointwise attack: the fewest changed values, without gradients. Slow."""
    allowed = max(1, round(POINTWISE_SHARE * target.x[0].numel()))
    attack = _from_foolbox("PointwiseAttack", target, ThreatModel(0.0, allowed))
    return replace(attack, black_box=True, images=POINTWISE_IMAGES)


# Of a batch, at most: 100 steps, of APGD-T towards each of 9 classes.
_PASSES = {"APGD-CE": 101, "APGD-T": 909, "Square": SQUARE_QUERIES}


def _part_of_auto_attack(name: str, target: Target) -> NamedAttack:
    """APGD-CE, APGD-T, or Square with 1,000 queries, of AutoAttack (Croce & Hein 2020)."""
    return NamedAttack(
        name=name,
        run=auto_attack(name, target),
        threat=target.threat,
        black_box=name == "Square",
        passes=_PASSES.get(name),
        dealt=True,
        parameters={
            "backend": backend(),
            **({"queries": SQUARE_QUERIES} if name == "Square" else {}),
        },
    )


def _whole_auto_attack(target: Target, state_dir: Path | None) -> NamedAttack:
    """Standard AutoAttack, whose parts each take what the ones before have left."""
    state = None if state_dir is None else state_dir / "autoattack.state"

    def attack(x: Tensor, y: Tensor) -> Attacked:
        result = attack_target(replace(target, x=x, y=y), state_path=state)
        details = {
            # Counts: the samples that were wrong before any attack are not among these.
            "still_correct": {k: round(v * len(x)) for k, v in result.accuracies.items()},
            "seconds": result.seconds,
            "flags": list(result.flags),
            "backend": result.backend,
        }
        return Attacked(torch.as_tensor(result.adversarial), details)

    return NamedAttack(
        name="AutoAttack",
        run=attack,
        threat=target.threat,
        black_box=True,
        passes=0,
        dealt=True,
        parameters={"backend": backend(), "version": "standard"},
    )


_MAKERS: dict[str, Callable[[Target], NamedAttack]] = {
    "FGSM": partial(_in_ball, "FastGradientMethod"),
    "PGD": partial(_pgd, step=1 / 30),
    "PGD-40": partial(_pgd, step=2.5 / PGD_STEPS),
    "MI-PGD": _momentum_pgd,
    "JSMA": _jsma,
    # The closest example in l2.
    "DDN-L2": lambda target: _from_foolbox("DDNAttack", target, _l2_threat(target), steps=20),
    "pointwise": _pointwise,
}
