"""Attacks of any library on one model, in one table: `evaluate`, and accuracy against eps."""

from art_lfr.attacks.named import AttackSpec
from art_lfr.evaluation.curves import AccuracyCurve, accuracy_curve, curve_figure
from art_lfr.evaluation.results import Evaluation, Row
from art_lfr.evaluation.run import evaluate

__all__ = [
    "AccuracyCurve",
    "AttackSpec",
    "Evaluation",
    "Row",
    "accuracy_curve",
    "curve_figure",
    "evaluate",
]
