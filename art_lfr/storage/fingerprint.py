"""What tells one evaluation from another: a hash of a model, data and settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Where the attack libraries have their attacks; first those whose attacks other libraries wrap.
ATTACKS = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox.attacks",
    "art": "art.attacks",
}
# What changes nothing of what an attack finds.
SILENT = frozenset({"verbose", "summary_writer"})


class SelfDescribed:
    """An object whose `repr` says all that it does: by this it is known again."""


def fingerprint(
    module: nn.Module | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """SHA-256, in hex, of a module, of tensors and of JSON settings.

    A module counts by its parameters and buffers and by its layers as they are printed: code that
    prints the same is not told apart.
    """
    digest = hashlib.sha256(json.dumps(settings or {}, sort_keys=True, default=str).encode())
    # Neither where it lies in memory nor on which GPU.
    digest.update(re.sub(r" at 0x[0-9a-fA-F]+| \(cuda:\d+\)", "", repr(module)).encode())
    state = {} if module is None else module.state_dict()
    for name, tensor in {**state, **(tensors or {})}.items():
        if isinstance(tensor, Tensor):  # a module may keep other things in its state
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            plain = tensor.detach().cpu().contiguous().flatten()
            digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def described(value: Any) -> Any:
    """A setting in JSON types: plain values, arrays and sequences as they are.

    An attack stands by its settings, a penalty by its own description, a function by its name,
    any other object by its class.
    """
    if isinstance(value, np.ndarray | np.generic | Tensor):
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [described(item) for item in value]
    if isinstance(value, dict):
        return {str(name): described(item) for name, item in value.items()}
    if library_of(value) is not None:
        return described_attack(value)
    if isinstance(value, SelfDescribed):
        return repr(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def described_attack(attack: Any) -> dict[str, Any]:
    """The class and settings of an attack, those of attacks inside it too."""
    named = getattr(attack, "attack_params", ())
    settings = {name: described(getattr(attack, name, None)) for name in named}
    for name, value in public(attack).items():
        # ART's attacks keep arrays of their last run beside the parameters that they name.
        if not named or isinstance(value, bool | int | float | str | np.generic):
            settings[name] = described(value)
    return {
        "class": described(type(attack)),
        **{name: value for name, value in settings.items() if name not in SILENT},
    }


def attacks_inside(attack: Any) -> Iterator[Any]:
    """The attacks that a public attribute of an attack holds, and those inside them."""
    for value in public(attack).values():
        for item in value if isinstance(value, list | tuple) else [value]:
            if library_of(item) is not None:
                yield item
                yield from attacks_inside(item)


def library_of(attack: object) -> str | None:
    """ "art", "torchattacks" or "foolbox", whose attack this is, without importing any; or None."""
    modules = tuple(f"{base.__module__}." for base in type(attack).__mro__)
    return next(
        (
            name
            for name, home in ATTACKS.items()
            if any(module.startswith(f"{home}.") for module in modules)
        ),
        None,
    )


def public(value: object) -> dict[str, Any]:
    """The attributes of an object whose names are public."""
    return {name: item for name, item in vars(value).items() if name[0] != "_"}
