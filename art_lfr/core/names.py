"""What users write by name: norms, networks, penalties, attacks. Words only, nothing slow imported.

So a command can refuse a wrong name at once. The objects of these names are made in
`art_lfr.models`, `penalties`, `evaluation` and `data`; `tests/core/test_names.py` compares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from numbers import Real

from art_lfr.core.arguments import check_choice
from art_lfr.errors import UsageError

# As AutoAttack and RobustBench write them.
NORM_NAMES = {math.inf: "Linf", 2.0: "L2", 1.0: "L1"}
MODELS = (
    "digits-cnn",
    "small-cnn",
    "paper-cnn",
    "resnet-20",
    "preact-resnet-18",
    "narrow-resnet",
)
# Their lam is by default a multiple of eps.
GRADIENT_NORMS = ("lfr", "lfr-held", "input-gradient")
# Those without lam.
UNWEIGHTED = ("adversarial-training",)
PENALTIES = (*GRADIENT_NORMS, "cure", "llr", "gradalign", *UNWEIGHTED, "trades")
# Settings that LFR alone has all of.
OF_LFR = ("estimator", "radius", "renew_every", "held_epochs")
_OF_ASCENTS = ("autocast", "warm_start")
# Settings that would change nothing, by penalty.
UNUSED: dict[str, tuple[str, ...]] = {
    "lfr": (),
    "lfr-held": ("held_epochs",),
    "input-gradient": ("max_iter", "eps_step", "renew_every", *_OF_ASCENTS),
    "cure": ("max_iter", "eps_step", "estimator", "renew_every", "held_epochs", *_OF_ASCENTS),
    "llr": (*OF_LFR, *_OF_ASCENTS),
    "gradalign": ("max_iter", "eps_step", *OF_LFR, *_OF_ASCENTS),
    "adversarial-training": (*OF_LFR, "batch_norm"),
    "trades": OF_LFR,
}
# Values that say no more than leaving a setting out does.
_SAY_NOTHING: dict[str, tuple[object, ...]] = {
    "estimator": ("finite-difference",),
    "renew_every": (1,),
    "held_epochs": (0,),
    "batch_norm": ("train",),
    "autocast": (False,),
    "warm_start": (False,),
}
PRESETS = {
    "quick": ("PGD-40", "APGD-T", "Square"),
    # Xu et al. (ICIP 2020), the attacks of their tables.
    "paper": ("FGSM", "PGD", "MI-PGD", "JSMA", "DDN-L2", "pointwise"),
    "autoattack": ("AutoAttack",),
}
AUTO_ATTACK_PARTS = ("APGD-CE", "APGD-T", "Square")
ATTACKS = ("PGD-40", *PRESETS["paper"], *AUTO_ATTACK_PARTS, "AutoAttack")
# What an evaluation takes by name.
ATTACK_NAMES = (*PRESETS, *ATTACKS)
METRICS = ("clever_u", "loss_sensitivity")
AUGMENTATIONS = ("none", "flip", "crop-flip")
FIGURE_FORMATS = (".png", ".pdf", ".svg")
VIEWS = ("contours", "3d")  # of a loss surface
PRECISIONS = ("float32", "bf16", "fp16")
OPTIMIZERS = ("sgd", "adam", "adamw")


def parse_norm(norm: float | str) -> float:
    """The exponent p as users of any library write a norm: np.inf, "inf", "Linf", "L2", "l1", 2."""
    if isinstance(norm, Real | str) and not isinstance(norm, bool):
        plain = re.sub(r"\A\s*[Ll][-_]?", "", norm) if isinstance(norm, str) else norm
        try:
            value = float(plain)
        except (ValueError, OverflowError):
            value = math.nan
        if value in NORM_NAMES:
            return value
    # Who writes text, as on the command line, is told of texts.
    plain = "inf, 2 and 1" if isinstance(norm, str) else 'np.inf, "inf", 2 and 1'
    names = "Linf, L2 and L1" if isinstance(norm, str) else '"Linf", "L2" and "L1"'
    raise UsageError(f"norm is {norm!r}; allowed: {plain}, or {names}")


def find_name(parameter: str, value: object, choices: Iterable[str], *, others: str = "") -> str:
    """The one of `choices` that is meant: case, hyphens and underscores do not matter.

    Raises ValueError, naming `parameter`, the nearest name and what else (`others`) is allowed.
    """
    choices = tuple(choices)
    if isinstance(value, str) and value not in choices:
        value = next((name for name in choices if _plain(name) == _plain(value)), value)
    check_choice(parameter, value, choices, others=others)
    return str(value)


def check_weight(penalty: object, lam: object, *, has_default: bool, weighted: bool = True) -> None:
    """Raise where lam is None for a penalty without a default of it, or given where none counts."""
    if not weighted:
        if lam is not None:
            raise UsageError(
                f"lam is {lam!r} with penalty {penalty!r}, which has no weight; allowed: None"
            )
    elif lam is None and not has_default:
        raise UsageError(
            f"lam is None with penalty {penalty!r}; allowed: a number >= 0 (the default belongs to "
            "the penalties that are gradient norms; for 'trades' lam is beta, usually 6)"
        )


def check_used(penalty: str, settings: Mapping[str, object]) -> None:
    """Raise UsageError for a setting that was given and would change nothing with the penalty."""
    for name in UNUSED[penalty]:
        value = settings.get(name)
        if value is not None and value not in _SAY_NOTHING.get(name, ()):
            raise UsageError(
                f"{name} is {value!r} with penalty {penalty!r}, which has no use for it; allowed: "
                "to leave it out"
            )


def find_attack(value: str, parameter: str = "attacks") -> str:
    """The attack or preset that is meant; "AA" is AutoAttack. See `find_name`."""
    value = "AutoAttack" if _plain(value) == "aa" else value
    return find_name(parameter, value, ATTACK_NAMES)


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).casefold()
