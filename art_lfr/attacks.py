"""Attacks on one model, under one name each: those of the quick set, and any of ART's.

An attack is a callable that takes raw inputs and index labels, both tensors on the CPU, and
returns adversarial examples of the same shape. `evaluation.run_attack` runs and checks it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from art_lfr.arguments import check_choice
from art_lfr.target import Target
from art_lfr.unit_box import UnitBox

Attack: TypeAlias = Callable[[Tensor, Tensor], Tensor]

QUICK = ("PGD-40", "APGD-T", "Square")
PGD_STEPS = 40
SQUARE_QUERIES = 1000
# The targeted DLR loss of APGD-T needs the fourth largest logit.
FEWEST_CLASSES_FOR_APGD_T = 4


def resolve_attacks(attacks: object, target: Target) -> dict[str, Attack]:
    """The attacks to run, by name.

    `attacks` is "quick", a name, an ART attack, a sequence of names and ART attacks, or a mapping
    from a user's name to an ART attack. Raises ValueError or TypeError, naming `attacks`.
    """
    if isinstance(attacks, Mapping):
        return {str(name): art_attack(value, target) for name, value in attacks.items()}
    if isinstance(attacks, str):
        attacks = list(QUICK) if attacks == "quick" else [attacks]
    elif not isinstance(attacks, Sequence):
        attacks = [attacks]
    found: dict[str, Attack] = {}
    for attack in attacks:
        if isinstance(attack, str):
            check_choice("attacks", attack, ["quick", *QUICK])
            names = QUICK if attack == "quick" else (attack,)
            found |= dict(quick_attack(name, target) for name in names)
        else:
            name, count = type(attack).__name__, 1
            while name in found:
                count += 1
                name = f"{type(attack).__name__} {count}"
            found[name] = art_attack(attack, target)
    return found


def quick_attack(name: str, target: Target) -> tuple[str, Attack]:
    """One attack of the quick set: PGD-40 (ART), APGD-T, Square with 1,000 queries (pyautoattack).

    PGD-40 has one random start and steps of 2.5 eps / 40. With fewer than four classes APGD-CE
    takes the place of APGD-T, whose loss needs four.
    """
    if name == "PGD-40":
        return name, pgd(target)
    if name == "APGD-T" and target.classes < FEWEST_CLASSES_FOR_APGD_T:
        name = "APGD-CE"
    return name, auto_attack(name, target)


def pgd(target: Target) -> Attack:
    """ART's ProjectedGradientDescent, 40 steps."""
    from art.attacks.evasion import ProjectedGradientDescent

    return art_attack(
        ProjectedGradientDescent(
            _classifier(target),
            norm=target.ball.p if target.ball.p == math.inf else int(target.ball.p),
            eps=target.ball.eps,
            eps_step=2.5 * target.ball.eps / PGD_STEPS,
            max_iter=PGD_STEPS,
            num_random_init=1,
            batch_size=target.batch_size,
            verbose=False,
        ),
        target,
    )


def auto_attack(name: str, target: Target) -> Attack:
    """APGD-CE, APGD-T or Square of AutoAttack (Croce & Hein 2020), batch by batch.

    They attack inputs in [0, 1], so the box is mapped onto it. Raises ValueError where the box is
    missing or not equally wide everywhere, and for Square where x is not (N, C, H, W).
    """
    from pyautoattack import AutoAttack

    instead = "another list of attacks, e.g. attacks=['PGD-40']"
    unit_box = UnitBox.of(target.ball.box, name, instead)
    if name == "Square" and target.x.dim() != 4:
        raise ValueError(
            f"x has shape {tuple(target.x.shape)}, but Square needs images (N, C, H, W); allowed: "
            f"such images, or {instead}"
        )
    suite = AutoAttack(
        unit_box.module(target.module),
        attacks=[],
        device=target.device,
        eps=target.ball.eps / unit_box.width,
        norm={math.inf: "Linf", 2.0: "L2", 1.0: "L1"}[target.ball.p],
        seed=target.seed,
        version="custom",
    )
    suite.apgd.loss = "ce"
    suite.apgd_targeted.n_target_classes = min(9, target.classes - 1)
    suite.square.n_queries = SQUARE_QUERIES
    # Called one by one: the suite's own run installs a trace function, which ends a debugger.
    perturb = {"APGD-CE": suite.apgd, "APGD-T": suite.apgd_targeted, "Square": suite.square}[name]

    def attack(x: Tensor, y: Tensor) -> Tensor:
        found = []
        for start in range(0, len(x), target.batch_size):
            raw = x[start : start + target.batch_size].to(target.device)
            labels = y[start : start + target.batch_size].to(target.device)
            moved = perturb.perturb(unit_box.to_unit(raw), labels).detach()
            found.append(unit_box.to_raw(moved, raw).cpu())
        return torch.cat(found)

    return attack


def art_attack(attack: Any, target: Target) -> Attack:
    """An ART evasion attack as a callable on tensors."""
    from art.attacks import EvasionAttack
    from art.attacks.evasion import AutoAttack

    if not isinstance(attack, EvasionAttack):
        raise TypeError(
            f"attacks has a {type(attack).__name__}; allowed: 'quick', "
            f"{', '.join(map(repr, QUICK))}, and evasion attacks of ART (art.attacks.evasion)"
        )
    if getattr(attack, "targeted", False) is True and not isinstance(attack, AutoAttack):
        raise ValueError(
            f"attacks has a {type(attack).__name__} with targeted True; allowed: untargeted "
            "attacks, as the labels given are the true ones"
        )
    return partial(_generate, attack, target)


def _generate(attack: Any, target: Target, x: Tensor, y: Tensor) -> Tensor:
    one_hot = np.eye(target.classes, dtype=np.float32)[y.numpy()]
    # ART may write to what it is given.
    found = attack.generate(x=x.numpy().copy(), y=one_hot)
    return torch.as_tensor(found)


def _classifier(target: Target) -> Any:
    """The user's classifier, or one made around a plain module."""
    if target.classifier is not None:
        return target.classifier
    from art.estimators.classification import PyTorchClassifier

    box = target.ball.box
    bounded = bool(box.low.isfinite().any() or box.high.isfinite().any())
    with torch.cuda.device(target.device if target.device.type == "cuda" else -1):
        return PyTorchClassifier(
            target.module,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(target.x.shape[1:]),
            nb_classes=target.classes,
            clip_values=(box.low.numpy(), box.high.numpy()) if bounded else None,
            device_type="gpu" if target.device.type == "cuda" else "cpu",
        )
