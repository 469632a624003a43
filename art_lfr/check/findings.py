"""What a check finds, and what it finds by looking at data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from art_lfr.core.geometry import Bounds


@dataclass(frozen=True)
class Finding:
    """A layer or a setting that does not go with LFR, and the mend.

    `severity` is "error" where training fails or means something else than intended, "warning"
    where it works with a loss in quality.
    """

    layer: str
    problem: str
    mend: str
    severity: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.layer}: {self.problem}. Mend: {self.mend}"


def look_at_data(x: Tensor, bounds: Bounds) -> Iterator[Finding]:
    """Inputs that are not in the units in which eps and the bounds are meant."""
    if not x.is_floating_point():
        yield Finding(
            "data",
            f"x has integers ({x.dtype})",
            "x.astype('float32') / 255 with bounds (0, 1), or floats with clip_values (0, 255)",
            "error",
        )
        x = x.double()
    if not bool(x.isfinite().all()):
        yield Finding("data", "x holds NaN or infinite values", "remove them", "error")
        return
    low, high = float(x.min()), float(x.max())
    bottom, top = (-math.inf, math.inf)
    if bounds is not None:
        bottom, top = float(np.min(np.asarray(bounds[0]))), float(np.max(np.asarray(bounds[1])))
    outside = low < bottom - 1e-6 or high > top + 1e-6
    mean, spread = float(x.double().mean()), float(x.double().std(correction=0))
    if low < 0 and abs(mean) < 0.5 and 0.5 < spread < 2 and (outside or bounds is None):
        yield Finding(
            "data",
            f"x looks standardised already (mean {mean:.2f}, standard deviation {spread:.2f}, "
            f"from {low:.2f}), so eps would not be in raw units",
            "keep x raw, and put mean and standard deviation into PyTorchClassifier("
            "preprocessing=(mean, std)) or into a first layer",
            "error" if outside else "warning",
        )
    elif outside or (bounds is None and high > 2 and low >= 0):
        allowed = "unknown" if bounds is None else f"[{bottom:g}, {top:g}]"
        yield Finding(
            "data",
            f"x has values from {low:g} to {high:g} where the bounds are {allowed}",
            "scale x (x / 255 for images in 0 to 255), or give its true range as bounds or "
            "clip_values, with eps in the same units",
            "error" if outside else "warning",
        )
    elif math.isfinite(top) and top > 2 and high <= 1:
        yield Finding(
            "data",
            f"x has no value above {high:g} where the bounds reach {top:g}",
            "one unit for x, bounds and eps: clip_values (0, 1) for x in [0, 1]",
            "warning",
        )
