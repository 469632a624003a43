"""Files with a bit flipped, a part missing or nothing in them are never just loaded."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from art_lfr.errors import UsageError
from art_lfr.models import paper_cnn
from art_lfr.storage.info import record_in
from art_lfr.storage.records import read_record, write_record
from art_lfr.storage.tensor_files import (
    load_safely,
    load_weights,
    read_safetensors,
    write_safetensors,
)

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


def save_described(content: dict[str, Any], path: Path) -> None:
    write_safetensors(path, content["tensors"], content["record"])


def read_described(path: Path) -> dict[str, Any]:
    tensors, found = read_safetensors(path), record_in(path)
    assert found is not None
    return {"tensors": tensors, "record": found[0]}


DESCRIBED = {
    "tensors": {"weight": torch.ones(40, 30) / 3, "bias": torch.zeros(3, dtype=torch.bfloat16)},
    "record": {"eps": 0.3, "model": "digits-cnn"},
}
TENSORS = {"format": 1, "network": {"weight": torch.ones(40, 30) / 3}, "history": [{"loss": 0.5}]}
NUMBERS = {"accuracy": {"clean": 0.987}, "times": [{"epoch": 1, "seconds": 12.5}], "notes": ["a"]}


@pytest.mark.parametrize("kind", ["flipped", "truncated", "zeroed", "emptied"])
@pytest.mark.parametrize(
    ("name", "content", "write", "read"),
    [
        ("last.pt", TENSORS, save, load_safely),
        ("run.json", NUMBERS, lambda content, path: write_record(path, content), read_record),
        ("net.safetensors", DESCRIBED, save_described, read_described),
    ],
    ids=["tensors", "record", "safetensors"],
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


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"0.extra": {"a": 1}}, "'0.extra' in its state, a dict, which safetensors cannot hold"),
        ({"0.w": torch.eye(3).to_sparse()}, "'0.w' in its state, of layout torch.sparse_coo"),
        ({"0.w": torch.ones(2, dtype=torch.complex128)}, "'0.w' .* of type torch.complex128"),
    ],
)
def test_what_safetensors_cannot_hold_is_refused_first(
    tmp_path: Path, wrong: dict[str, Any], says: str
) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(UsageError, match=says):
        write_safetensors(path, {"0.b": torch.ones(2), **wrong}, {})
    assert not path.exists()


def test_shared_and_strided_weights_and_numbers_that_json_lacks(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"a": whole, "b": whole, "c": whole.T, "d": whole[0], "e": torch.tensor(True)}
    path = tmp_path / "net.safetensors"
    write_safetensors(path, tensors, {"a": float("nan"), "b": np.float32(0.5), "c": (1, Path("x"))})
    found, record = read_safetensors(path), record_in(path)
    assert same(found, tensors)
    assert record is not None
    assert record[0] == {"a": None, "b": 0.5, "c": [1, "x"]}
    first = path.read_bytes()
    write_safetensors(path, tensors, {"a": None, "b": 0.5, "c": [1, "x"]})
    assert path.read_bytes() == first  # the same content, the same bytes


TRADES = [*(f"feature_extractor.conv{i}" for i in range(1, 5))]
TRADES += [f"classifier.fc{i}" for i in range(1, 4)]


@pytest.mark.parametrize("wrap", [False, True])
def test_the_small_cnn_of_trades_and_the_authors(tmp_path: Path, wrap: bool) -> None:
    """Their layers, in the order of their class; dropout has no weights."""
    network = paper_cnn(3)
    layers = [m for m in network if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    state = {
        f"{'module.' * wrap}{name}.{kind}": getattr(layer, kind).detach()
        for name, layer in zip(TRADES, layers, strict=True)
        for kind in ("weight", "bias")
    }
    torch.save({"state_dict": state} if wrap else state, tmp_path / "w.pt")
    found = paper_cnn(0)
    load_weights(found, tmp_path / "w.pt")
    assert same(dict(found.state_dict()), dict(network.state_dict()))


def test_safetensors_of_others_are_a_plain_state_dict(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    state = {f"module.{name}": value + 1 for name, value in model.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w", {"format": "pt"})
    assert record_in(tmp_path / "w") is None
    load_weights(model, tmp_path / "w")
    assert torch.equal(model[0].bias, state["module.0.bias"])
