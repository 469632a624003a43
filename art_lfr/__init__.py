"""Local flatness regularization (LFR) for the Adversarial Robustness Toolbox and plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

__version__ = "0.1.0"

if TYPE_CHECKING:
    from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
    from art_lfr.art.transformer import LocalFlatnessRegularization
    from art_lfr.evaluation.run import evaluate
    from art_lfr.loss import LFRLoss, lfr_loss
    from art_lfr.masking.report import masking_report
    from art_lfr.measure import local_flatness

__all__ = [
    "AdversarialTrainerLFRPyTorch",
    "LFRLoss",
    "LocalFlatnessRegularization",
    "evaluate",
    "lfr_loss",
    "local_flatness",
    "masking_report",
]

# On first use: ART alone takes seconds to import, and the loss and the measure do without it.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "art.trainer": ["AdversarialTrainerLFRPyTorch"],
        "art.transformer": ["LocalFlatnessRegularization"],
        "evaluation.run": ["evaluate"],
        "loss": ["LFRLoss", "lfr_loss"],
        "masking.report": ["masking_report"],
        "measure": ["local_flatness"],
    },
)
