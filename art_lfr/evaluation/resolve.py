"""What a user names or hands over as attacks, each in the form of `art_lfr.attacks.named`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from art_lfr.attacks.named import AttackSpec, NamedAttack, art_attack
from art_lfr.attacks.target import Target, ThreatModel, UnitBox, classifier_of, parse_library_norm
from art_lfr.core.arguments import check_integer
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.evaluation.presets import NAMES, named_attacks
from art_lfr.storage.description import library_of
from art_lfr.storage.files import check_file_name

# Rows of every table, arrays of every file of examples, and arguments of numpy.savez.
RESERVED = ("clean", "worst case", "x", "y", "file", "allow_pickle")
# Classes, of any of the libraries, that use no gradients.
BLACK_BOX = {
    "BoundaryAttack",
    "GenAttack",
    "GeoDA",
    "HopSkipJump",
    "HopSkipJumpAttack",
    "OnePixel",
    "PixelAttack",
    "Pixle",
    "PointwiseAttack",
    "SPSA",
    "SaltAndPepperNoiseAttack",
    "SignOPTAttack",
    "SimBA",
    "Square",
    "SquareAttack",
    "ThresholdAttack",
    "ZooAttack",
}
ALLOWED = (
    "evasion attacks of ART (art.attacks.evasion), attacks of torchattacks and of foolbox, an "
    "AttackSpec"
)


def resolve_attacks(
    attacks: object, target: Target, *, state_dir: Path | None = None, progress: bool = False
) -> list[NamedAttack]:
    """The attacks to run, each under a name of its own.

    `attacks` is the name of a preset or of an attack, an attack object, an `AttackSpec`, a
    sequence of these, or a mapping from a user's names to them. Raises ValueError or TypeError,
    naming `attacks`, before any of them runs.
    """
    pairs: list[tuple[str | None, object]]
    if isinstance(attacks, Mapping):
        pairs = [(str(name), value) for name, value in attacks.items()]
    elif isinstance(attacks, Sequence) and not isinstance(attacks, str | bytes):
        pairs = [(None, value) for value in attacks]
    else:
        pairs = [(None, attacks)]
    resolved: list[NamedAttack] = []
    for name, value in pairs:
        spec = value if isinstance(value, AttackSpec) else AttackSpec(value)
        check_integer("images of an AttackSpec", spec.images, low=1, optional=True)
        if isinstance(spec.attack, str):
            new = named_attacks(spec.attack, target, state_dir, progress)
            if spec.eps is not None or spec.norm is not None:
                raise UsageError(
                    f"attacks has an AttackSpec with eps or norm around the name {spec.attack!r}; "
                    "allowed: around an attack object (named attacks have those of the evaluation)"
                )
            if name is not None and len(new) > 1:
                raise UsageError(
                    f"attacks[{name!r}] is the preset {spec.attack!r}; allowed in a mapping: "
                    "single attacks"
                )
        else:
            new = [from_object(spec.attack, spec, target)]
        for attack in new:
            wanted, taken = name or attack.name, {other.name for other in resolved}
            numbered = (f"{wanted} {number}" for number in count(2))
            free = next(free for free in chain([wanted], numbered) if free not in taken)
            check_file_name("the name in attacks", free)
            if free in RESERVED:
                raise UsageError(
                    f"attacks has the name {free!r}; allowed: any but {', '.join(RESERVED)}"
                )
            images = attack.images if spec.images is None else spec.images
            resolved.append(replace(attack, name=free, images=images))
    return resolved


def from_object(attack: Any, spec: AttackSpec, target: Target) -> NamedAttack:
    """An attack object of any library, with the threat model that it declares."""
    kind = type(attack).__name__
    library = _library(attack)
    declared = _declared(attack, library, target)
    if spec.eps is not None or spec.norm is not None:
        p = target.ball.p if spec.norm is None else _norm(spec.norm)
        if spec.eps is None and p != target.ball.p:
            raise UsageError(
                f"attacks has an AttackSpec with norm {spec.norm!r} and no eps; allowed: both"
            )
        threat = ThreatModel(p, target.ball.eps if spec.eps is None else float(spec.eps))
    elif declared is not None and declared.p != target.ball.p:
        threat = declared
    else:
        threat = target.threat
    if declared is not None and declared.p == threat.p and declared.eps > 1.0001 * threat.eps:
        raise UsageError(
            f"attacks has a {kind} with eps {declared.eps:g}, in raw units, where eps is "
            f"{threat.eps:g}; allowed: at most that"
        )
    minimal = declared is None or declared.p != threat.p
    if library == "torchattacks":
        from art_lfr.torchattacks import TorchattacksEvasion

        evasion = TorchattacksEvasion(classifier_of(target), attack, batch_size=target.batch_size)
    elif library == "foolbox":
        from art_lfr.foolbox import FoolboxEvasion, exponent

        minimal = exponent(attack) != threat.p
        evasion = FoolboxEvasion(
            classifier_of(target),
            attack,
            eps=None if minimal else threat.eps,
            batch_size=target.batch_size,
        )
    else:
        evasion = attack
    return NamedAttack(
        name=kind,
        run=art_attack(evasion, target),
        threat=threat,
        minimal=minimal,
        black_box=_needs_no_gradient(attack),
        parameters={"object": attack},
    )


def _needs_no_gradient(attack: Any) -> bool:
    """Whether an attack, or one of those that it is made of, is a black-box one."""
    # torchattacks' AutoAttack holds the others in one of them.
    parts = [*getattr(attack, "attacks", ()), getattr(attack, "_autoattack", None)]
    by_itself = type(attack).__name__ in BLACK_BOX
    return by_itself or any(_needs_no_gradient(part) for part in parts if part is not None)


def _library(attack: object) -> str:
    """The library of an attack object; TypeError for anything else."""
    library = library_of(attack)
    if library == "art":
        from art.attacks import EvasionAttack

        library = "art" if isinstance(attack, EvasionAttack) else None
    if library is None:
        raise WrongTypeError(
            f"attacks has a {type(attack).__name__}; allowed: {', '.join(map(repr, NAMES))}, "
            f"{ALLOWED}"
        )
    return library


def _declared(attack: Any, library: str, target: Target) -> ThreatModel | None:
    """The norm and eps, in raw units, that an attack object has; None where it has no budget."""
    eps = getattr(attack, "eps", None)
    if eps is None or library == "foolbox":
        return None
    # ART allows one eps a feature.
    size = float(np.max(np.asarray(eps, dtype=float)))
    if library == "torchattacks":
        size *= UnitBox.of(target.ball.box, "torchattacks", "attacks of ART").width
    kind = type(attack).__name__
    by_name = 2 if "L2" in kind else 1 if "L1" in kind else math.inf
    try:
        p = _norm(getattr(attack, "norm", by_name))
    except (ValueError, TypeError):  # "wasserstein" and the like: no ball of ours
        return None
    return ThreatModel(p, size) if size > 0 else None


def _norm(norm: Any) -> float:
    """As `parse_library_norm`, and 0: the number of changed values."""
    return 0.0 if norm in (0, "0", "L0", "l0") else parse_library_norm(norm)
