"""The warnings of AutoAttack: what makes its result doubtful for a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

import torch
from torch import Tensor

# In AutoAttack's own words, which those who search for it will search for.
DYNAMIC = (
    "it seems to be a dynamic defense! The evaluation with AutoAttack might be insufficient. "
    "See flags_doc.md for details."
)


class FlagCollector:
    """Stands where AutoAttack's attacks and checks expect a logger, and keeps their warnings.

    Those of pyautoattack call `warning`, those of the original `log`. Each text is kept in `flags`
    and passed on once.
    """

    def __init__(self, flags: list[str], pass_on: Callable[[str], object]) -> None:
        self.flags = flags
        self._pass_on = pass_on

    def warning(self, text: str) -> None:
        """Keep a warning."""
        if text not in self.flags:
            self.flags.append(text)
            self._pass_on(text)

    def log(self, text: str) -> None:
        """Keep a warning that the original wrote."""
        self.warning(text.removeprefix("Warning: "))

    @contextmanager
    def attached(self, suite: Any) -> Iterator[None]:
        """Collect from the attacks of a suite, and give them their own loggers back."""
        found = [(attack, attack.logger) for attack in (suite.apgd, suite.apgd_targeted)]
        try:
            for attack, _ in found:
                attack.logger = self
            yield
        finally:
            for attack, logger in found:
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
    found = False

    def watch(frame: FrameType, event: str, function: Any) -> None:
        nonlocal found
        if event == "c_call" and getattr(function, "__name__", "") == "run_backward":
            found = True

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        with torch.enable_grad():
            model(x)
    finally:
        sys.setprofile(before)
    return found
