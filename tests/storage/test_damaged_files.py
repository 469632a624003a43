"""Files with a bit flipped, a part missing or nothing in them are never just loaded."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from art_lfr.storage.records import read_record, write_record
from art_lfr.storage.tensor_files import load_safely, load_weights

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


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("0.weight", torch.int64), ("0.bias", torch.complex64), ("1.num_batches_tracked", torch.half)],
)
def test_weights_of_another_kind_of_type_are_refused(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = tmp_path / "weights.pt"
    torch.save({**before, name: before[name].to(dtype)}, path)
    with pytest.raises(ValueError, match=f"has '{name}' of type {dtype}, .*; allowed: any"):
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_are_taken(tmp_path: Path, dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    torch.save({key: value.to(dtype) for key, value in model.state_dict().items()}, tmp_path / "w")
    load_weights(model, tmp_path / "w")
    assert model[0].weight.dtype == torch.float32
