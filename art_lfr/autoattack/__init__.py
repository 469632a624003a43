"""The standard AutoAttack on either of its packages, resumable: `run_autoattack`."""

from art_lfr.autoattack.run import AutoAttackResult, attack_target, run_autoattack

__all__ = ["AutoAttackResult", "attack_target", "run_autoattack"]
