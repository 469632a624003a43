"""The settings of local flatness regularization, their checks, and their defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from art_lfr.core.arguments import check_choice, check_flag, check_integer, check_number
from art_lfr.core.names import parse_norm
from art_lfr.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

ESTIMATORS = ("finite-difference", "exact")
BATCH_NORM_MODES = ("eval", "train")
# With a radius of fewer roundings of the largest input the penalty is off by more than some per
# cent (measured on digits, in float32 and bfloat16).
FEWEST_SPACINGS = 8


@dataclass(frozen=True)
class NormDefaults:
    """Defaults of one norm, as multiples of eps.

    `path` is the length of all steps together; no step is longer than `longest_step`.
    """

    path: float
    longest_step: float
    lam: float
    radius: float

    def step(self, steps: int) -> float:
        """The length of one of so many steps, as a multiple of eps."""
        return min(self.path / max(1, steps), self.longest_step)


# Chosen on validation data by benchmarks/defaults; docs/defaults.md has the experiment. In l-inf
# renewing every second gradient costs nothing, in l2 that is open: docs/performance.md.
DEFAULTS: dict[float, NormDefaults] = {
    math.inf: NormDefaults(path=2.0, longest_step=0.4, lam=0.5, radius=0.25),
    2.0: NormDefaults(path=2.0, longest_step=0.4, lam=0.5, radius=0.25),
    1.0: NormDefaults(path=2.0, longest_step=0.4, lam=0.5, radius=0.25),
}


@dataclass(frozen=True, init=False)
class LFRSettings:
    """The objective l(x) + lam * max over the eps-ball of ||grad l||_q, and how it is estimated.

    All lengths are in raw input units. `None` takes the default of the norm, for lengths a multiple
    of eps; the attributes are the values that count.

    Args:
        eps: Radius of the ball, >= 0.
        norm: p of the ball: np.inf, 2 or 1.
        steps: Ascent steps K, >= 0.
        step_size: Length of a step, > 0. None: 2 eps / steps, and at most 0.4 eps.
        lam: Weight of the penalty, >= 0.
        estimator: "finite-difference" or "exact".
        radius: Finite-difference radius h, > 0.
        batch_norm: "train" or "eval": which statistics the penalty's passes use.
        renew_every: See `find_least_flat_point`; >= 1.
        autocast: See `art_lfr.penalties.flatness`.

    Raises:
        ValueError, TypeError: For anything out of range, naming the parameter.
    """

    eps: float
    norm: float
    steps: int
    step_size: float
    lam: float
    estimator: str
    radius: float
    batch_norm: str
    renew_every: int
    autocast: bool

    def __init__(
        self,
        *,
        eps: float,
        norm: float | str = math.inf,
        steps: int = 10,
        step_size: float | None = None,
        lam: float | None = None,
        estimator: str = "finite-difference",
        radius: float | None = None,
        batch_norm: str = "train",
        renew_every: int = 1,
        autocast: bool = False,
    ) -> None:
        check_number("eps", eps)
        default = DEFAULTS[parse_norm(norm)]
        check_integer("steps", steps, low=0)
        check_number("step_size", step_size, low_allowed=eps == 0, optional=True)
        check_number("lam", lam, optional=True)
        check_choice("estimator", estimator, ESTIMATORS)
        check_number("radius", radius, low_allowed=estimator == "exact", optional=True)
        check_choice("batch_norm", batch_norm, BATCH_NORM_MODES)
        check_integer("renew_every", renew_every, low=1)
        check_flag("autocast", autocast)
        if eps == 0 and lam is None:
            raise UsageError(
                "eps is 0, and lam, by default a multiple of it, is None; allowed: eps > 0, or lam "
                "(input-gradient regularization, with radius > 0 or estimator='exact')"
            )
        if eps == 0 and radius is None and estimator != "exact":
            raise UsageError(
                "eps is 0, and radius, by default a multiple of it, is None; allowed: eps > 0, "
                "radius > 0, or estimator='exact'"
            )
        values = {
            "eps": float(eps),
            "norm": parse_norm(norm),
            "steps": int(steps),
            "step_size": float(default.step(steps) * eps if step_size is None else step_size),
            "lam": float(default.lam * eps if lam is None else lam),
            "estimator": estimator,
            "radius": float(default.radius * eps if radius is None else radius),
            "batch_norm": batch_norm,
            "renew_every": int(renew_every),
            "autocast": autocast,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the class is frozen

    def check_radius(self, x: Tensor) -> str | None:
        """Raise ValueError where x + h is x: where h is below the rounding of the largest input.

        Otherwise what to warn of, where h is only a few roundings, or None.
        """
        if self.estimator == "exact" or self.lam == 0:
            return None
        import torch  # here, so that settings are checked without it

        name = str(x.dtype).removeprefix("torch.")
        largest = float(x.abs().max())
        spacing = torch.finfo(x.dtype).eps * largest / 2
        if self.radius < spacing:
            raise UsageError(
                f"radius is {self.radius:g}, less than the rounding of inputs of {largest:g} in "
                f"{name}, {spacing:.2g}; allowed: more than that, better some hundred times as "
                "much (the default is a quarter of eps)"
            )
        if self.radius < FEWEST_SPACINGS * spacing:
            # A power of 2, so that the text, and with it the warning, is not new in each batch.
            most = 2.0 ** math.ceil(math.log2(largest))
            spacing = torch.finfo(x.dtype).eps * most / 2
            return (
                f"radius is {self.radius:g}, a few roundings of inputs of up to {most:g} in {name} "
                f"({spacing:.2g} each): the flatness will be off by some per cent. Take a larger "
                "radius, or a type with more digits."
            )
        return None

    def warmed(self, epochs: float, warmup_epochs: float) -> LFRSettings:
        """The settings after so many epochs: eps, lam and the step rise together, linearly.

        They reach their full size at `warmup_epochs`; the radius is always that of the full eps.
        """
        part = 1.0 if epochs >= warmup_epochs else epochs / warmup_epochs
        return replace(
            self, eps=self.eps * part, lam=self.lam * part, step_size=self.step_size * part
        )
