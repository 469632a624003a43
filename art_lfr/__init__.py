"""Local flatness regularization (LFR) for the Adversarial Robustness Toolbox and plain PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
    from art_lfr.art.transformer import LocalFlatnessRegularization
    from art_lfr.evaluation.run import evaluate
    from art_lfr.loss import LFRLoss, lfr_loss
    from art_lfr.masking.report import masking_report
    from art_lfr.measure import local_flatness

__version__ = "0.1.0"

__all__ = [
    "AdversarialTrainerLFRPyTorch",
    "LFRLoss",
    "LocalFlatnessRegularization",
    "evaluate",
    "lfr_loss",
    "local_flatness",
    "masking_report",
]

# Names are resolved on first use (PEP 562): ART alone takes seconds to import, and the loss and
# the measure serve users who do not have it.
_HOMES = {
    "AdversarialTrainerLFRPyTorch": "art_lfr.art.trainer",
    "LFRLoss": "art_lfr.loss",
    "LocalFlatnessRegularization": "art_lfr.art.transformer",
    "evaluate": "art_lfr.evaluation.run",
    "lfr_loss": "art_lfr.loss",
    "local_flatness": "art_lfr.measure",
    "masking_report": "art_lfr.masking.report",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'art_lfr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
