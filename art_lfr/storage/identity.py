"""What makes two runs the same, whatever is run: a training, an evaluation, a tuning, AutoAttack.

State on the disk belongs to one identity. What goes on from it has the same one, or is refused with
the differences named. What is no part of an identity may differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from art_lfr.errors import UsageError
from art_lfr.storage.description import Description, Plain
from art_lfr.storage.records import digest

MOST_NAMED = 3
# Steps of a path that say nothing to a reader.
WHOLE = frozenset({"array", "class", "code", "length"})
UNNAMED = ("layers", "takes", "_loss", "(root)")


class Identity:
    """The parts of a run, each described as in `art_lfr.storage.description`.

    Args:
        parts: Name to value; a name is what errors call the part.
        description: What describes them; it may have described some before, for another run.
        plain: Parts that are in JSON types already.

    Attributes:
        parts: Name to description, in JSON types; the versions of all libraries last.
    """

    def __init__(
        self,
        parts: Mapping[str, Any],
        description: Description | None = None,
        plain: Mapping[str, Plain] | None = None,
    ) -> None:
        description = description or Description()
        described = {name: description.of(value) for name, value in parts.items()}
        self.parts: dict[str, Plain] = {**described, **(plain or {})}
        self.parts["version"] = description.versions()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all parts, in hex."""
        return digest(self.parts)

    def check(
        self, saved: Mapping[str, Plain], where: str, allowed: str, moved: Sequence[str] = ()
    ) -> None:
        """Raise UsageError, naming the differences, unless `saved` are the parts of the same run.

        `where` is what has the saved ones, such as "the run in checkpoint_dir"; `moved` are paths
        to what a run changes itself, which may differ.
        """
        refuse_differences(differences(self.parts, saved, where, moved), allowed)

    def moved_to(self, later: Identity) -> list[str]:
        """Paths to what has changed between two identities of the same things."""
        return [".".join(path) for path, _, _ in _differences(self.parts, later.parts, ())]


def seal(content: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of what a file of tensors holds beside its own `sha256`.

    The check sums of the file itself say only that it is as somebody wrote it.
    """
    kept = {name: part for name, part in content.items() if name != "sha256"}
    return digest(Description().of(kept))


def refuse_differences(found: list[str], allowed: str) -> None:
    """Raise UsageError where there is a difference."""
    if found:
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise UsageError(f"{'; '.join(found[:MOST_NAMED])}{more}; allowed: {allowed}")


def differences(
    present: Mapping[str, Plain],
    saved: Mapping[str, Plain],
    where: str,
    moved: Sequence[str] = (),
) -> list[str]:
    """What differs between two descriptions, in words, unless it lies under a path in `moved`."""
    beneath = tuple(f"{path}." for path in moved)
    return [
        _in_words(".".join(path), now, then, where)
        for path, now, then in _differences(dict(present), dict(saved), ())
        if not f"{'.'.join(path)}.".startswith(beneath or "\0")
    ]


def _differences(
    now: Plain, then: Plain, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Plain, Plain]]:
    if now == then:
        return
    now, then = (
        {} if a is None and isinstance(b, dict) and not b.keys() & WHOLE else a
        for a, b in ((now, then), (then, now))
    )
    if isinstance(now, dict) and isinstance(then, dict) and "array" not in now:
        if "class" in now and now["class"] != then.get("class"):  # the rest follows from it
            yield (*path, "class"), now["class"], then.get("class")
            return
        # A function by another name computes the same.
        names = dict.fromkeys([*now, *then]).keys() - ({"name"} if "code" in now else set())
        for name in sorted(names, key=[*now, *then].index):
            inner = path if name in UNNAMED else (*path, str(name))
            yield from _differences(now.get(name), then.get(name), inner)
    elif _both_lists(now, then):
        for index, (a, b) in enumerate(zip(now, then, strict=True)):
            yield from _differences(a, b, (*path, str(index)))
    else:
        yield path, now, then


def _both_lists(now: Plain, then: Plain) -> bool:
    return isinstance(now, list) and isinstance(then, list) and len(now) == len(then)


def _is_hash(value: Plain) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None


def _in_words(name: str, now: Plain, then: Plain, where: str) -> str:
    shapes = [_shape(value) for value in (now, then)]
    if (shapes[0] and shapes[0] == shapes[1]) or (_is_hash(now) and _is_hash(then)):
        return f"{name} is another than in {where}"
    return f"{name} is {_short(now)}, but {where} has {_short(then)}"


def _shape(value: Plain) -> str:
    """What is told of an array of many values."""
    many = isinstance(value, dict) and "array" in value and "values" not in value
    return f"{value['array']} of shape {value['shape']}" if many else ""


def _short(value: Plain) -> str:
    if isinstance(value, dict):
        value = value.get("layers", {}).get("(root)", value)
        value = next((value[k] for k in ("values", "class", "name") if k in value), value)
    text = _shape(value) or repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
