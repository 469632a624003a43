"""Attacks on one model in one form, whichever library they come from.

`run_attack` in `attack_runner` runs and checks them; the named ones are in `presets`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from art_lfr.arguments import check_integer
from art_lfr.evaluation.threat import ThreatModel
from art_lfr.target import Target


class Attacked(NamedTuple):
    """Adversarial examples, shape of x, and what else an attack has to tell (JSON types)."""

    adversarial: Tensor
    details: dict[str, Any]


# Rows of every table, arrays of every file of examples, and arguments of numpy.savez.
RESERVED = ("clean", "worst case", "x", "y", "file", "allow_pickle")
# (raw inputs, index labels), both on the CPU -> adversarial examples of the same shape
Attack: TypeAlias = Callable[[Tensor, Tensor], "Tensor | Attacked"]


@dataclass(frozen=True)
class NamedAttack:
    """An attack as the runner takes it.

    Attributes:
        name: Name of its row.
        run: The attack.
        threat: Which of its examples count.
        minimal: It seeks the closest example: one outside `threat` is a sample that stands. An
            example of any other attack outside `threat` is an error in its settings.
        images: It runs on the first so many images only; None: on all.
        black_box: It uses no gradients.
        parameters: What tells it from another of the same name, for resuming.
    """

    name: str
    run: Attack
    threat: ThreatModel
    minimal: bool = False
    images: int | None = None
    black_box: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackSpec:
    """An attack of a user's with a threat model of its own, or on fewer images.

    Attributes:
        attack: A name, or an attack object of ART, torchattacks or foolbox.
        eps: Radius in which its examples count, raw units (norm 0: number of changed values).
        norm: np.inf, 2, 1 or 0; None: that of the evaluation.
        images: Run it on the first so many images.
    """

    attack: object
    eps: float | None = None
    norm: float | str | None = None
    images: int | None = None


def resolve_attacks(
    attacks: object,
    target: Target,
    *,
    slow_images: int = 20,
    state_dir: Path | None = None,
    progress: bool = False,
) -> list[NamedAttack]:
    """The attacks to run, each under a name of its own.

    `attacks` is the name of a preset or of an attack, an attack object, an `AttackSpec`, a
    sequence of these, or a mapping from a user's names to them. Raises ValueError or TypeError,
    naming `attacks`, before any of them runs.
    """
    from art_lfr.evaluation.objects import from_object
    from art_lfr.evaluation.presets import named_attacks

    given: list[tuple[str | None, object]]
    if isinstance(attacks, Mapping):
        given = [(str(name), value) for name, value in attacks.items()]
    elif isinstance(attacks, Sequence) and not isinstance(attacks, str | bytes):
        given = [(None, value) for value in attacks]
    else:
        given = [(None, attacks)]
    found: list[NamedAttack] = []
    for name, value in given:
        spec = value if isinstance(value, AttackSpec) else AttackSpec(value)
        check_integer("images of an AttackSpec", spec.images, low=1, optional=True)
        if isinstance(spec.attack, str):
            new = named_attacks(spec.attack, target, slow_images, state_dir, progress)
            if spec.eps is not None or spec.norm is not None:
                raise ValueError(
                    f"attacks has an AttackSpec with eps or norm around the name {spec.attack!r}; "
                    "allowed: around an attack object (named attacks have those of the evaluation)"
                )
            if name is not None and len(new) > 1:
                raise ValueError(
                    f"attacks[{name!r}] is the preset {spec.attack!r}; allowed in a mapping: "
                    "single attacks"
                )
        else:
            new = [from_object(spec.attack, spec, target)]
        for attack in new:
            changes: dict[str, Any] = {"name": _free_name(name or attack.name, found)}
            if spec.images is not None:
                changes["images"] = spec.images
            found.append(replace(attack, **changes))
    for attack in found:
        if attack.name in RESERVED:
            raise ValueError(
                f"attacks has the name {attack.name!r}; allowed: any but {', '.join(RESERVED)}"
            )
    return found


def _free_name(name: str, found: Sequence[NamedAttack]) -> str:
    taken, free, count = {attack.name for attack in found}, name, 1
    while free in taken:
        count += 1
        free = f"{name} {count}"
    return free
