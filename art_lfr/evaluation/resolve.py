"""What a user names or hands over as attacks, each in the form of `art_lfr.attacks.named`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from art_lfr.attacks.named import AttackSpec, NamedAttack
from art_lfr.attacks.target import Target
from art_lfr.core.arguments import check_integer
from art_lfr.errors import UsageError

# Rows of every table, arrays of every file of examples, and arguments of numpy.savez.
RESERVED = ("clean", "worst case", "x", "y", "file", "allow_pickle")


def resolve_attacks(
    attacks: object,
    target: Target,
    *,
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
            changes: dict[str, Any] = {"name": _free_name(name or attack.name, found)}
            if spec.images is not None:
                changes["images"] = spec.images
            found.append(replace(attack, **changes))
    for attack in found:
        if attack.name in RESERVED:
            raise UsageError(
                f"attacks has the name {attack.name!r}; allowed: any but {', '.join(RESERVED)}"
            )
    return found


def _free_name(name: str, found: Sequence[NamedAttack]) -> str:
    taken, free, count = {attack.name for attack in found}, name, 1
    while free in taken:
        count += 1
        free = f"{name} {count}"
    return free
