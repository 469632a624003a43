"""What a user names or hands over as attacks, each in the form of `art_lfr.attacks.named`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from art_lfr.attacks.made_for import made_for_another
from art_lfr.attacks.named import AttackSpec, NamedAttack, art_attack, function_attack
from art_lfr.attacks.target import (
    Target,
    ThreatModel,
    UnitBox,
    classifier_of,
    untouched,
)
from art_lfr.core.arguments import check_integer, check_number
from art_lfr.core.modes import device_of
from art_lfr.core.names import ATTACK_NAMES, parse_norm
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.evaluation.presets import named_attacks
from art_lfr.storage.description import attacks_inside, library_of
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
# What the libraries call the length of a step and the number of steps.
STEP = ("alpha", "eps_step", "abs_stepsize")
STEPS = ("steps", "max_iter")
ALLOWED = (
    "evasion attacks of ART (art.attacks.evasion), attacks of torchattacks and of foolbox, "
    "functions (model, x, y) -> adversarial, an AttackSpec"
)


def resolve_attacks(
    attacks: object, target: Target, *, state_dir: Path | None = None
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
    if not pairs:  # the worst case would be the clean accuracy
        raise UsageError(f"attacks is {attacks!r}; allowed: at least one attack")
    resolved: list[NamedAttack] = []
    for name, value in pairs:
        spec = value if isinstance(value, AttackSpec) else AttackSpec(value)
        check_integer("images of an AttackSpec", spec.images, low=1, optional=True)
        check_number("eps of an AttackSpec", spec.eps, low_allowed=False, optional=True)
        if isinstance(spec.attack, str):
            new = named_attacks(spec.attack, target, state_dir)
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
    """An attack object of any library, or a function, with the threat model that it declares."""
    kind, library = _kind(attack), _library(attack)
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
    # An attack keeps the model that it was made for; those of foolbox and functions have none.
    transferred = made_for_another(attack, library, target)
    if library == "function":
        of_unit_box = _unwrapped(attack).__module__.startswith("adv_lib.")
        unit_box = UnitBox.of(target.ball.box, kind, "another attack") if of_unit_box else None
        run = function_attack(attack, target, unit_box)
    elif library == "torchattacks":
        from art_lfr.torchattacks import TorchattacksEvasion

        evasion: Any = TorchattacksEvasion(
            classifier_of(target), attack, batch_size=target.batch_size, own_model=transferred
        )
        run = art_attack(evasion, target)
    elif library == "foolbox":
        from art_lfr.foolbox import FoolboxEvasion, exponent

        minimal = exponent(attack) != threat.p
        evasion = FoolboxEvasion(
            classifier_of(target),
            attack,
            eps=None if minimal else threat.eps,
            batch_size=target.batch_size,
        )
        run = art_attack(evasion, target)
    else:
        estimator = attack.estimator
        own = estimator is not None and estimator is target.adapter.classifier
        if own and classifier_of(target) is not estimator:
            raise UsageError(
                f"attacks has a {kind} around a network that ART itself cannot run (not float32, "
                "or outputs that are no tensor); allowed: named attacks such as 'PGD-40', or a "
                "float32 network that returns its logits"
            )
        run = art_attack(attack, target)
        made_for = getattr(estimator, "model", None)
        if transferred and isinstance(made_for, nn.Module):
            # ART switches modes and leaves gradients, in that model too.
            run = untouched(made_for, device_of(made_for, target.x))(run)
    notes = []
    if transferred:
        notes.append(
            "made for another model than the judged one, which gets its examples: a transfer "
            "attack, no white-box one"
        )
    if library == "torchattacks" and (modes := _targeted_modes(attack)):
        notes.append(
            f"it, or an attack inside it, is in the mode {modes}: it seeks one other class where "
            "an untargeted attack takes any"
        )
    has_budget = not minimal or _is_made_of(threat, attack, library, target)
    if has_budget and (reach := _reach(attack, library, target, threat)) < 0.999 * threat.eps:
        notes.append(
            f"reaches at most {reach:.3g} of the {threat.eps:.3g} of its ball, by its own eps or "
            "its number of steps times their length: raise alpha (eps_step) or the steps"
        )
    return NamedAttack(
        name=kind,
        run=run,
        threat=threat,
        minimal=minimal,
        black_box=_needs_no_gradient(attack),
        transferred=transferred,
        notes=tuple(notes),
        # Exact, where the label of the threat model has four digits.
        parameters={"object": attack, "p": threat.p, "eps": threat.eps},
    )


def _unwrapped(function: Any) -> Any:
    """The function inside `functools.partial`."""
    while isinstance(function, partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function)


def _kind(attack: Any) -> str:
    """The name of a function, or of the class of an attack object."""
    if library_of(attack) is not None or not callable(attack):
        return type(attack).__name__
    return str(_unwrapped(attack).__name__).strip("<>")


def _reach(attack: Any, library: str, target: Target, threat: ThreatModel) -> float:
    """How far an attack can go from where it starts, raw units: by its eps, and by its steps."""
    parts = [part for part in attacks_inside(attack) if library_of(part) is not None]
    step = next((s for name in STEP if (s := getattr(attack, name, None)) is not None), None)
    counts = (getattr(attack, name, None) for name in STEPS)
    steps = next((n for n in counts if isinstance(n, int)), None)
    unit = 1.0
    if library in ("torchattacks", "foolbox"):
        unit = UnitBox.of(target.ball.box, library, "attacks of ART").width
    eps = getattr(attack, "eps", None)
    limit = math.inf if eps is None or library == "foolbox" else unit * float(np.max(eps))
    if step is None and (relative := getattr(attack, "rel_stepsize", None)) is not None:
        step, unit = relative * threat.eps, 1.0
    if step is None and parts:
        return max(_reach(part, library, target, threat) for part in parts)
    # ART's FGSM has a step for another mode of it; torchattacks' FFGSM takes a single one.
    if steps is None and library == "torchattacks":
        steps = 1
    if step is None or steps is None:
        return limit
    return min(limit, steps * unit * float(np.max(step)))


def _is_made_of(threat: ThreatModel, attack: Any, library: str, target: Target) -> bool:
    """Whether an attack without a budget of its own is made of ones that have one in that norm."""
    if library != "torchattacks" or getattr(attack, "eps", None) is not None:
        return False
    inside = [part for part in attacks_inside(attack) if not hasattr(part, "attacks")]
    budgets = [_declared(part, library, target) for part in inside]
    return bool(budgets) and all(b is not None and b.p == threat.p for b in budgets)


def _targeted_modes(attack: Any) -> str:
    """The modes of torchattacks, other than the default, of an attack and those inside it."""
    modes = [getattr(part, "attack_mode", "") for part in (attack, *attacks_inside(attack))]
    return ", ".join(dict.fromkeys(repr(mode) for mode in modes if mode.startswith("targeted")))


def _needs_no_gradient(attack: Any) -> bool:
    """Whether an attack, or one of those that it is made of, is a black-box one."""
    # torchattacks' AutoAttack holds the others in one of them.
    parts = [*getattr(attack, "attacks", ()), getattr(attack, "_autoattack", None)]
    by_itself = type(attack).__name__ in BLACK_BOX
    return by_itself or any(_needs_no_gradient(part) for part in parts if part is not None)


def _library(attack: object) -> str:
    """The library of an attack object; TypeError for anything else."""
    if isinstance(attack, type):
        raise WrongTypeError(
            f"attacks has the class {attack.__name__}; allowed: an instance, {attack.__name__}(...)"
        )
    library = library_of(attack)
    if library is None and callable(attack) and not isinstance(attack, nn.Module):
        try:
            inspect.signature(attack).bind("model", "x", "y")
        except TypeError as error:
            raise WrongTypeError(
                f"attacks has the function {_kind(attack)!r}, which cannot be called with (model, "
                "x, y); allowed: one that can, with the rest by functools.partial"
            ) from error
        except ValueError:  # a function of C, without a signature
            pass
        return "function"
    if library == "art":
        from art.attacks import EvasionAttack

        library = "art" if isinstance(attack, EvasionAttack) else None
    if library is None:
        raise WrongTypeError(
            f"attacks has a {type(attack).__name__}; allowed: "
            f"{', '.join(map(repr, ATTACK_NAMES))}, {ALLOWED}"
        )
    return library


def _declared(attack: Any, library: str, target: Target) -> ThreatModel | None:
    """The norm and eps, in raw units, that an attack object has; None where it has no budget."""
    eps = getattr(attack, "eps", None)
    if eps is None or library in ("foolbox", "function"):
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
    """As `parse_norm`, and 0: the number of changed values."""
    return 0.0 if norm in (0, "0", "L0", "l0") else parse_norm(norm)
