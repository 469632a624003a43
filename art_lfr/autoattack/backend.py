"""The package that has AutoAttack, the original or else pyautoattack, and its warnings."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from art_lfr.attacks.target import Target, UnitBox
from art_lfr.core.names import NORM_NAMES

# The DLR loss needs the third largest logit, its targeted form the fourth.
FEWEST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}
# In AutoAttack's own words, which those who search for it will search for.
DYNAMIC = (
    "it seems to be a dynamic defense! The evaluation with AutoAttack might be insufficient. "
    "See flags_doc.md for details."
)


def make_suite(model: object, **settings: Any) -> tuple[Any, ModuleType, str]:
    """An `AutoAttack` of either package, that package's checks, and its name with version.

    `settings` are norm, eps, seed, version and device, which mean the same in both.
    """
    name = backend().partition(" ")[0]
    if name == "autoattack":
        settings["verbose"] = False
    package, checks = importlib.import_module(name), importlib.import_module(f"{name}.checks")
    return package.AutoAttack(model, **settings), checks, backend()


def backend() -> str:
    """The package that attacks, and its version."""
    name = "pyautoattack"
    if _original_is_installed():
        try:
            importlib.import_module("autoattack")
        except ImportError:
            pass  # too old for this torch
        else:
            name = "autoattack"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed, a copy)"
    return f"{name} {version}"


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
    changes = []
    missing = [a for a in suite.attacks_to_run if classes < FEWEST_CLASSES.get(a, 0)]
    if missing:
        suite.attacks_to_run = [a for a in suite.attacks_to_run if a not in missing]
        changes.append(
            f"the model has {classes} classes, fewer than the loss of {' and '.join(missing)} "
            f"needs: only {', '.join(suite.attacks_to_run)} were run"
        )
    for name, attack in (("apgd-t", suite.apgd_targeted), ("fab-t", suite.fab)):
        if name in suite.attacks_to_run and attack.n_target_classes > classes - 1:
            changes.append(
                f"{name} used {classes - 1} target classes, not {attack.n_target_classes}: the "
                f"model has {classes} classes"
            )
            attack.n_target_classes = classes - 1
    return changes


def _original_is_installed() -> bool:
    """Whether `autoattack` is a package on disk: not a script, nor a stand-in for it."""
    try:
        spec = importlib.util.find_spec("autoattack")
    except ValueError:  # a module without a spec, put there by hand
        return False
    return spec is not None and spec.has_location and bool(spec.submodule_search_locations)


class FlagCollector:
    """Stands where AutoAttack's attacks and checks expect a logger, and keeps their warnings.

    Those of pyautoattack call `warning`, those of the original `log`. Each text is kept in `flags`
    and passed on once.
    """

    def __init__(
        self, flags: Iterable[str] = (), pass_on: Callable[[str], object] | None = None
    ) -> None:
        self.flags = list(flags)
        self._pass_on = pass_on

    def warning(self, text: str) -> None:
        """Keep a warning."""
        if text not in self.flags:
            self.flags.append(text)
            if self._pass_on is not None:
                self._pass_on(text)

    def log(self, text: str) -> None:
        """Keep a warning that the original wrote."""
        self.warning(text.removeprefix("Warning: "))

    @contextmanager
    def attached(self, suite: Any) -> Iterator[None]:
        """Collect from the attacks of a suite, and give them their own loggers back."""
        loggers = [(attack, attack.logger) for attack in (suite.apgd, suite.apgd_targeted)]
        try:
            for attack, _ in loggers:
                attack.logger = self
            yield
        finally:
            for attack, logger in loggers:
                attack.logger = logger


def find_flags(
    suite: Any, checks: ModuleType, x: Tensor, y: Tensor, collector: FlagCollector
) -> None:
    """Run AutoAttack's checks of a model on its first batch; `checks` is their module.

    Its check for dynamic defences is replaced: it ends the trace function of a debugger or of a
    coverage tool, and never forgets a model that it has flagged.
    """
    if suite.version != "rand":
        checks.check_randomized(suite.get_logits, x, y, bs=len(x), logger=collector)
    classes = checks.check_range_output(suite.get_logits, x, logger=collector)
    if differentiates(suite.model, x):
        collector.warning(DYNAMIC)
    checks.check_n_classes(
        classes,
        suite.attacks_to_run,
        suite.apgd_targeted.n_target_classes,
        suite.fab.n_target_classes,
        logger=collector,
    )


def differentiates(model: Callable[[Tensor], object], x: Tensor) -> bool:
    """Whether the forward pass of a model computes gradients itself, as an optimisation loop does.

    Watches for calls of torch's backward engine, under whichever name they were imported. A
    profiler that is running misses this one pass.
    """
    called = False

    def watch(frame: FrameType, event: str, function: Any) -> None:
        nonlocal called
        if event == "c_call" and getattr(function, "__name__", "") == "run_backward":
            called = True

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        with torch.enable_grad():
            model(x)
    finally:
        sys.setprofile(before)
    return called
