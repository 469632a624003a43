"""Tests on a device: what they make is there, what the package makes is where it makes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import art_lfr

PACKAGE = str(Path(art_lfr.__file__).parent)
MAKERS = {
    torch.arange,
    torch.empty,
    torch.eye,
    torch.full,
    torch.linspace,
    torch.ones,
    torch.rand,
    torch.randint,
    torch.randn,
    torch.tensor,
    torch.zeros,
}
# With these torch.nn fills the weights of a new layer.
FILLERS = {Tensor.normal_, Tensor.uniform_}


class PlacedOn(TorchFunctionMode):
    """Puts tensors and layers that tests make, without saying where, on a device.

    Numbers are drawn on the CPU first, so that they are the same on all devices, and so that
    generators, which the package has on the CPU, are too. What the package makes is left alone: a
    tensor that it forgets to place is to fail.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FILLERS and args[0].device == self.device and not _by_package():
            with torch.no_grad():
                drawn = func(torch.empty_like(args[0], device="cpu"), *args[1:], **kwargs)
                return args[0].copy_(drawn)
        if func not in MAKERS or kwargs.get("device") is not None or _by_package():
            return func(*args, **kwargs)
        requires_grad = kwargs.pop("requires_grad", False)
        return func(*args, **kwargs).to(self.device).requires_grad_(requires_grad)


def _by_package() -> bool:
    """Whether the package is nearer to the call than a test is."""
    tests, frame = str(Path(__file__).parents[1]), sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            return True
        if file.startswith(tests) and file != __file__:
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False
