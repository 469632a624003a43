"""Files with a bit flipped, a part missing or nothing in them are never just loaded."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from art_lfr.storage.records import read_record, write_record
from art_lfr.storage.tensor_files import load_safely

DAMAGES = 200


def damaged(good: bytes, kind: str, draw: random.Random) -> bytes:
    if kind == "emptied":
        return b""
    if kind == "truncated":
        return good[: draw.randrange(len(good))]
    if kind == "zeroed":
        start = draw.randrange(len(good))
        return good[:start] + bytes(min(64, len(good) - start)) + good[start + 64 :]
    place, bit = draw.randrange(len(good)), 1 << draw.randrange(8)
    return good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :]


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def save(content: dict[str, Any], path: Path) -> None:
    torch.save(content, path)


TENSORS = {"format": 1, "network": {"weight": torch.ones(40, 30) / 3}, "history": [{"loss": 0.5}]}
NUMBERS = {"accuracy": {"clean": 0.987}, "times": [{"epoch": 1, "seconds": 12.5}], "notes": ["a"]}


@pytest.mark.parametrize("kind", ["flipped", "truncated", "zeroed", "emptied"])
@pytest.mark.parametrize(
    ("name", "content", "write", "read"),
    [
        ("last.pt", TENSORS, save, load_safely),
        ("run.json", NUMBERS, lambda content, path: write_record(path, content), read_record),
    ],
    ids=["tensors", "record"],
)
def test_no_damage_goes_unnoticed(
    tmp_path: Path,
    name: str,
    content: dict[str, Any],
    write: Callable[[dict[str, Any], Path], None],
    read: Callable[[Path], dict[str, Any]],
    kind: str,
) -> None:
    path, draw = tmp_path / name, random.Random(0)
    write(content, path)
    assert same(read(path), content)
    good, messages, harmless = path.read_bytes(), [], 0
    for _ in range(DAMAGES):
        path.write_bytes(damaged(good, kind, draw))
        try:
            found = read(path)
        except ValueError as error:
            messages.append(str(error))
        else:
            # In the padding between tensors, in dates, in white space.
            assert same(found, content)
            harmless += 1
    print(f"{kind}: {len(messages)} refused, {harmless} without effect on what is read")
    assert len(messages) > DAMAGES / 2
    assert all(f"{name} is damaged" in message for message in messages)
