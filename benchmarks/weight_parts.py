"""A network's weights in half precision, in files small enough to be carried home."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from art_lfr.storage.files import write_atomically

PART_BYTES = 15 * 2**20


def save_parts(network: nn.Module, stem: Path) -> list[str]:
    """Weights in half precision, in files of at most 15 MiB; their names."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in network.state_dict().items():
        half = value.detach().cpu()
        half = half.half() if half.is_floating_point() else half
        count = half.numel() * half.element_size()
        if parts[-1] and size + count > PART_BYTES - 2**18:
            parts.append({})
            size = 0
        parts[-1][name], size = half, size + count
    names = []
    for index, part in enumerate(parts):
        path = stem.with_name(f"{stem.name}-{index}.pt")
        write_atomically(path, lambda file, part=part: torch.save(part, file))
        names.append(path.name)
    return names


def join(stem: Path, target: Path) -> None:
    """Put the parts of a network's weights into one state dict in float32."""
    weights: dict[str, Tensor] = {}
    for path in sorted(stem.parent.glob(f"{stem.name}-*.pt")):
        part = torch.load(path, map_location="cpu", weights_only=True)
        weights |= {k: v.float() if v.is_floating_point() else v for k, v in part.items()}
    if not weights:
        raise SystemExit(f"no files {stem}-*.pt")
    write_atomically(target, lambda file: torch.save(weights, file))
