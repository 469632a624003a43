"""What tells one evaluation from another: a hash of weights, data and settings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(module: nn.Module, tensors: dict[str, Tensor], settings: dict[str, Any]) -> str:
    """SHA-256, in hex, of the module's parameters and buffers, of tensors and of JSON settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in {**module.state_dict(), **tensors}.items():
        if isinstance(tensor, Tensor):  # a module may keep other things in its state
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            plain = tensor.detach().cpu().contiguous().flatten()
            digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
