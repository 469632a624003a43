"""Prints as JSON: the file of `autoattack`, whose class two modules use, whether parts mix."""

from __future__ import annotations

import json

import art_lfr.robustbench  # noqa: F401  # before the two that it prepares

# isort: split
import autoattack
import robustbench

from art_lfr.robustbench import protocol

try:
    import autoattack.checks

    mixed = True
except ModuleNotFoundError:
    mixed = False
used = [module.AutoAttack.__module__ for module in (robustbench.eval, protocol)]
print(json.dumps([autoattack.__file__, *used, mixed]))
