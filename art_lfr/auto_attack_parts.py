"""Single attacks of AutoAttack: APGD-CE, APGD-T and Square."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from art_lfr.attacks import Attack
from art_lfr.target import Target
from art_lfr.unit_box import UnitBox

SQUARE_QUERIES = 1000


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
