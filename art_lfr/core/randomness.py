"""Noise from explicit generators, and the global random states, captured and put back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomState:
    """The states of torch's, NumPy's and Python's global generators at one moment.

    Dropout draws from torch's, ART's attacks from NumPy's, and some stochastic-depth code from
    Python's. A network evaluated twice from equal states sees equal random masks.
    """

    torch_cpu: Tensor
    torch_device: Tensor | None
    device: torch.device
    numpy: tuple[Any, ...]
    python: tuple[Any, ...]

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        """Read the states now; `device` is the one the model runs on."""
        on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(
            torch.get_rng_state(), on_gpu, device, tuple(np.random.get_state()), random.getstate()
        )

    def restore(self) -> None:
        """Put the global generators back to this state."""
        torch.set_rng_state(self.torch_cpu)
        if self.torch_device is not None:
            torch.cuda.set_rng_state(self.torch_device, self.device)
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    def differs_from(self, other: RandomState) -> bool:
        """Whether any generator has been drawn from between the two."""
        gpu_equal = (
            self.torch_device is None
            or other.torch_device is None
            or torch.equal(self.torch_device, other.torch_device)
        )
        return not (
            torch.equal(self.torch_cpu, other.torch_cpu)
            and gpu_equal
            and self.python == other.python
            and self.numpy[2:] == other.numpy[2:]
            and bool(np.array_equal(self.numpy[1], other.numpy[1]))
        )

    def to_plain(self) -> dict[str, Any]:
        """The state as tensors and JSON types, for a checkpoint."""
        name, keys, position, has_gauss, gauss = self.numpy
        version, internal, gauss_next = self.python
        return {
            "torch_cpu": self.torch_cpu,
            "torch_device": self.torch_device,
            "numpy": [
                name,
                torch.from_numpy(keys.astype(np.int64)),
                int(position),
                int(has_gauss),
                float(gauss),
            ],
            "python": [version, list(internal), gauss_next],
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any], device: torch.device) -> RandomState:
        """Rebuild a state written by `to_plain`."""
        name, keys, position, has_gauss, gauss = plain["numpy"]
        version, internal, gauss_next = plain["python"]
        return cls(
            plain["torch_cpu"].cpu(),
            None if plain["torch_device"] is None else plain["torch_device"].cpu(),
            device,
            (name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss),
            (version, tuple(internal), gauss_next),
        )


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of x's shape, drawn on the generator's device, at least float32."""
    return _drawn(torch.randn, x, generator)


def uniform_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform noise in [0, 1) of x's shape, drawn on the generator's device, at least float32."""
    return _drawn(torch.rand, x, generator)


def _drawn(draw: Callable[..., Tensor], x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    noise = draw(x.shape, generator=generator, device=device, dtype=_at_least_float32(x))
    return noise.to(x.device)


def _at_least_float32(x: Tensor) -> torch.dtype:
    # A uniform number in half precision is 0 once in a few hundred draws: its logarithm infinite.
    return torch.promote_types(x.dtype, torch.float32)


def seed_global_generators(seed: int) -> None:
    """Seed torch's, NumPy's and Python's global generators."""
    seed = int(seed)  # torch takes no NumPy integers
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def preserved_random_state(device: torch.device) -> Iterator[None]:
    """Leave the global generators as they were, also when an exception passes through."""
    state = RandomState.capture(device)
    try:
        yield
    finally:
        state.restore()
