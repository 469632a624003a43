"""Single attacks of AutoAttack: APGD-CE, APGD-T and Square."""

from __future__ import annotations

import torch
from torch import Tensor

from art_lfr.attacks.image_checks import check_square
from art_lfr.attacks.named import Attack, Attacked
from art_lfr.attacks.target import Target
from art_lfr.autoattack.attacks import perturb
from art_lfr.autoattack.backend import suite_for
from art_lfr.autoattack.flags import FlagCollector

SQUARE_QUERIES = 1000


def auto_attack(name: str, target: Target) -> Attack:
    """APGD-CE, APGD-T or Square of AutoAttack (Croce & Hein 2020), batch by batch.

    They attack inputs in [0, 1], so the box is mapped onto it. Raises ValueError where the box is
    missing or not equally wide everywhere, and for Square where x is not (N, C, H, W).
    """
    instead = "another list of attacks, e.g. attacks=['PGD-40']"
    suite, _, _, unit_box, _ = suite_for(target, who=name, instead=instead)
    if name == "Square":
        check_square(target.x, target.ball.p, instead)
    suite.square.n_queries = SQUARE_QUERIES

    def attack(x: Tensor, y: Tensor) -> Attacked:
        found = []
        collector = FlagCollector([], lambda text: None)
        with collector.attached(suite):
            for start in range(0, len(x), target.batch_size):
                raw = x[start : start + target.batch_size].to(target.device)
                labels = y[start : start + target.batch_size].to(target.device)
                moved = perturb(suite, name.lower(), unit_box.to_unit(raw), labels).detach()
                found.append(unit_box.to_example(moved, raw, target.module, target.ball.box).cpu())
        return Attacked(torch.cat(found), {"flags": collector.flags} if collector.flags else {})

    return attack
