"""The affine map between the box of valid inputs and [0, 1], where attack libraries work."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from art_lfr.core.geometry import Box, per_sample
from art_lfr.errors import UsageError


class UnitBoxModule(nn.Module):
    """Inputs in [0, 1] to logits: the affine map onto the valid box, then the model."""

    def __init__(self, network: nn.Module, low: Tensor, width: float) -> None:
        super().__init__()
        self.network = network
        self.low = low
        self.width = width

    def forward(self, unit: Tensor) -> Tensor:
        """Map (N, ...) in [0, 1] to logits.

        The gradient comes back in the order of `unit`, whatever that of the weights: attack
        libraries look at it with `view`, which channels-last order does not allow.
        """
        unit = unit.flatten(1).reshape(unit.shape)
        logits: Tensor = self.network(self.low.to(unit.device) + self.width * unit)
        return logits


@dataclass(frozen=True)
class UnitBox:
    """raw = low + width * unit. One width for all features, so that balls stay balls."""

    low: Tensor
    width: float

    @classmethod
    def of(cls, box: Box, who: str, instead: str) -> UnitBox:
        """The map of a box.

        Raises ValueError where the box is infinite or not equally wide for all features; `who`
        names what needs the map, `instead` what the user can do.
        """
        widths = (box.high - box.low).flatten()
        width = float(widths[0])
        if not math.isfinite(width) or bool((widths - width).abs().max() > 1e-6 * width):
            found = f"[{float(box.low.min()):g}, {float(box.high.max()):g}]"
            raise UsageError(
                f"bounds is {found}, but {who} needs finite bounds, equally wide for all "
                f"features; allowed: such bounds (clip_values of a classifier), or {instead}"
            )
        return cls(box.low, width)

    def to_unit(self, raw: Tensor) -> Tensor:
        """Raw inputs as values in [0, 1]."""
        return ((raw - self.low.to(raw.device)) / self.width).clamp(0, 1)

    def to_raw(self, unit: Tensor, start: Tensor) -> Tensor:
        """Values in [0, 1] as raw inputs; a coordinate that equals `start`'s keeps its raw value.

        `start` are the raw inputs that an attack began from: what it did not touch stays free of
        the rounding of the map.
        """
        raw = self.low.to(unit.device) + self.width * unit
        return torch.where(unit == self.to_unit(start), start, raw)

    @torch.no_grad()
    def to_example(self, unit: Tensor, start: Tensor, network: nn.Module, box: Box) -> Tensor:
        """As `to_raw`, inside the box, and of the class that the attack saw.

        `network` maps raw inputs to logits. Back in the exact values of `start`, an example that
        was just over the boundary may be just before it again: then it stays what the attack saw,
        all its coordinates off by a rounding.
        """
        box = box.to(unit.device)
        seen = box.clip(self.low.to(unit.device) + self.width * unit)
        raw = self.to_raw(unit, start)
        raw = torch.where(raw == start, start, box.clip(raw))
        if torch.equal(raw, seen):
            return raw
        lost = network(raw).argmax(dim=1) != network(seen).argmax(dim=1)
        return torch.where(per_sample(lost, raw), seen, raw)

    def module(self, network: nn.Module) -> UnitBoxModule:
        """The network on inputs in [0, 1]."""
        return UnitBoxModule(network, self.low, self.width)
