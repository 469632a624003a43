"""Files of tensors with a bit flipped, a part missing or nothing in them are never just loaded."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from art_lfr.checkpoint import load_safely

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


@pytest.mark.parametrize("kind", ["flipped", "truncated", "zeroed", "emptied"])
def test_no_damage_goes_unnoticed(tmp_path: Path, kind: str) -> None:
    content = {"format": 1, "network": {"weight": torch.randn(40, 30)}, "history": [{"loss": 0.5}]}
    path, draw = tmp_path / "last.pt", random.Random(0)
    torch.save(content, path)
    good, messages, harmless = path.read_bytes(), [], 0
    for _ in range(DAMAGES):
        path.write_bytes(damaged(good, kind, draw))
        try:
            found = load_safely(path)
        except ValueError as error:
            messages.append(str(error))
        else:
            # In the padding between tensors, in dates or in unused fields.
            assert same(found, content)
            harmless += 1
    print(f"{kind}: {len(messages)} refused, {harmless} without effect on what is read")
    assert len(messages) > DAMAGES / 2
    assert all("last.pt is damaged" in message for message in messages)
