"""The package that has AutoAttack: the original where it is installed, pyautoattack elsewhere."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType
from typing import Any, NamedTuple

from art_lfr.attacks.target import Target
from art_lfr.attacks.unit_box import UnitBox
from art_lfr.core.geometry import NORM_NAMES

# The DLR loss needs the third largest logit, its targeted form the fourth.
FEWEST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}


def make_suite(model: object, **settings: Any) -> tuple[Any, ModuleType, str]:
    """An `AutoAttack` of either package, that package's checks, and its name with version.

    `settings` are norm, eps, seed, version and device, which mean the same in both.
    """
    if _original_is_installed():
        try:
            package, checks = _import("autoattack")
        except ImportError:
            pass  # too old for this torch
        else:
            suite = package.AutoAttack(model, verbose=False, **settings)
            return suite, checks, _named("autoattack")
    package, checks = _import("pyautoattack")
    return package.AutoAttack(model, **settings), checks, _named("pyautoattack")


class TargetSuite(NamedTuple):
    """A suite for a target on its unit box, and what was changed for few classes, in words."""

    suite: Any
    checks: ModuleType
    backend: str
    unit_box: UnitBox
    changed: list[str]


def suite_for(target: Target, *, who: str, instead: str, version: str = "standard") -> TargetSuite:
    """The suite that attacks a target; ValueError, naming `who`, where its box is no cube."""
    unit_box = UnitBox.of(target.ball.box, who, instead)
    suite, checks, backend = make_suite(
        unit_box.module(target.module),
        norm=NORM_NAMES[target.ball.p],
        eps=target.ball.eps / unit_box.width,
        seed=target.seed,
        version=version,
        device=target.device,
    )
    return TargetSuite(suite, checks, backend, unit_box, fit_to_classes(suite, target.classes))


def fit_to_classes(suite: Any, classes: int) -> list[str]:
    """Leave out attacks, and targets of attacks, that so few classes do not allow; what was done.

    AutoAttack itself only warns, and then fails on the logit that is not there.
    """
    told = []
    missing = [a for a in suite.attacks_to_run if classes < FEWEST_CLASSES.get(a, 0)]
    if missing:
        suite.attacks_to_run = [a for a in suite.attacks_to_run if a not in missing]
        told.append(
            f"the model has {classes} classes, fewer than the loss of {' and '.join(missing)} "
            f"needs: only {', '.join(suite.attacks_to_run)} were run"
        )
    for name, attack in (("apgd-t", suite.apgd_targeted), ("fab-t", suite.fab)):
        if name in suite.attacks_to_run and attack.n_target_classes > classes - 1:
            told.append(
                f"{name} used {classes - 1} target classes, not {attack.n_target_classes}: the "
                f"model has {classes} classes"
            )
            attack.n_target_classes = classes - 1
    return told


def _original_is_installed() -> bool:
    """Whether `autoattack` is a package on disk: not a script, nor a stand-in for it."""
    try:
        spec = importlib.util.find_spec("autoattack")
    except ValueError:  # a module without a spec, put there by hand
        return False
    return spec is not None and spec.has_location and bool(spec.submodule_search_locations)


def _import(name: str) -> tuple[Any, ModuleType]:
    return importlib.import_module(name), importlib.import_module(f"{name}.checks")


def _named(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{name} (not installed, a copy)"
