"""Penalties on the loss around each sample: LFR's own and those of its neighbours."""

from __future__ import annotations

from collections.abc import Mapping

from art_lfr.core.arguments import check_choice
from art_lfr.core.names import check_used, check_weight
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.penalties.adversarial import AdversarialTraining, Trades
from art_lfr.penalties.base import LossView, Part, Penalty
from art_lfr.penalties.flatness import InputGradient, LocalFlatness
from art_lfr.penalties.neighbours import Cure, GradAlign, LocalLinearity

# The names that trainers, losses and YAML files take.
PENALTIES: dict[str, Penalty] = {
    "lfr": LocalFlatness(),
    "lfr-held": LocalFlatness(minus_weight=0.0),
    "input-gradient": InputGradient(),
    "cure": Cure(),
    "llr": LocalLinearity(),
    "gradalign": GradAlign(),
    "adversarial-training": AdversarialTraining(),
    "trades": Trades(),
}


def penalty_for(penalty: str | Penalty, settings: Mapping[str, object]) -> Penalty:
    """The penalty of a name, or the object itself, to go with settings that are checked already.

    Raises ValueError for an unknown name, for lam None where the default, a multiple of eps, has
    not the unit of the penalty, for a minus term held where the estimator has none, and for a
    setting that would change nothing; TypeError for anything else.
    """
    if isinstance(penalty, Penalty):
        chosen = penalty
    elif isinstance(penalty, str):
        check_choice("penalty", penalty, tuple(PENALTIES))
        check_used(penalty, settings)
        chosen = PENALTIES[penalty]
    else:
        raise WrongTypeError(
            f"penalty is {penalty!r}; allowed: {', '.join(PENALTIES)}, or an "
            "art_lfr.penalties.Penalty"
        )
    has_default = isinstance(chosen, LocalFlatness)
    lam = settings.get("lam")
    check_weight(penalty, lam, has_default=has_default, weighted=chosen.weighted)
    exact = settings.get("estimator") == "exact"
    if exact and isinstance(chosen, LocalFlatness) and chosen.minus_weight < 1:
        raise UsageError(
            f"estimator is 'exact' with penalty {penalty!r}, which holds the minus term of a "
            "finite difference; allowed: 'finite-difference', or penalty 'lfr'"
        )
    for name in ("autocast", "warm_start"):
        if settings.get(name) and not chosen.ascends:
            raise UsageError(
                f"{name} is True with penalty {penalty!r}; allowed: False, because it is an option "
                "of an ascent, which this penalty has not"
            )
    return chosen


__all__ = [
    "PENALTIES",
    "AdversarialTraining",
    "Cure",
    "GradAlign",
    "InputGradient",
    "LocalFlatness",
    "LocalLinearity",
    "LossView",
    "Part",
    "Penalty",
    "Trades",
    "penalty_for",
]
