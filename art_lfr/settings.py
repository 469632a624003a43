"""The settings of local flatness regularization, their checks, and their defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from art_lfr.arguments import check_choice, check_flag, check_integer, check_number
from art_lfr.geometry import parse_norm

ESTIMATORS = ("finite-difference", "exact")
BATCH_NORM_MODES = ("eval", "train")


@dataclass(frozen=True)
class DefaultScale:
    """Defaults of one norm as multiples of eps (a step's is a multiple of eps / steps)."""

    step_size: float
    lam: float
    radius: float


# Chosen on validation data by benchmarks/defaults.py; docs/defaults.md has the experiment.
DEFAULT_SCALES: dict[float, DefaultScale] = {
    math.inf: DefaultScale(step_size=2.0, lam=0.5, radius=0.25),
    2.0: DefaultScale(step_size=2.0, lam=0.5, radius=0.25),
    1.0: DefaultScale(step_size=2.0, lam=0.5, radius=0.25),
}


@dataclass(frozen=True)
class LFRSettings:
    """The objective l(x) + lam * max over the eps-ball of ||grad l||_q, and how it is estimated.

    All lengths are in raw input units. `None` takes the default of the norm, which scales with
    eps. `radius` is the finite-difference radius h. The last two save time in the ascent, see
    `find_least_flat_point` and `art_lfr.penalties.flatness`.

    Raises ValueError or TypeError, naming the parameter, for anything out of range.
    """

    eps: float
    norm: float | str = math.inf
    steps: int = 10
    step_size: float | None = None
    lam: float | None = None
    estimator: str = "finite-difference"
    radius: float | None = None
    batch_norm: str = "train"
    renew_every: int = 1
    autocast: bool = False

    def __post_init__(self) -> None:
        check_number("eps", self.eps)
        parse_norm(self.norm)
        check_integer("steps", self.steps, low=0)
        check_number("step_size", self.step_size, low_allowed=False, optional=True)
        check_number("lam", self.lam, optional=True)
        check_choice("estimator", self.estimator, ESTIMATORS)
        check_number("radius", self.radius, low_allowed=False, optional=True)
        check_choice("batch_norm", self.batch_norm, BATCH_NORM_MODES)
        check_integer("renew_every", self.renew_every, low=1)
        check_flag("autocast", self.autocast)
        if self.eps == 0 and self.radius is None and self.estimator != "exact":
            raise ValueError(
                "radius is None with eps 0; allowed: a number > 0, or estimator='exact', "
                "because the default radius is a multiple of eps"
            )

    @property
    def p(self) -> float:
        """The exponent of the ball's norm."""
        return parse_norm(self.norm)

    @property
    def resolved_step_size(self) -> float:
        """The length of an ascent step."""
        if self.step_size is not None:
            return float(self.step_size)
        return DEFAULT_SCALES[self.p].step_size * self.eps / max(1, self.steps)

    @property
    def resolved_lam(self) -> float:
        """The weight of the penalty."""
        return DEFAULT_SCALES[self.p].lam * self.eps if self.lam is None else float(self.lam)

    @property
    def resolved_radius(self) -> float:
        """The finite-difference radius h."""
        return (
            DEFAULT_SCALES[self.p].radius * self.eps if self.radius is None else float(self.radius)
        )

    def warmed(self, epochs: float, warmup_epochs: float) -> LFRSettings:
        """The settings after so many epochs: eps, lam and the step rise together, linearly.

        They reach their full size at `warmup_epochs`; the radius is always that of the full eps.
        """
        part = 1.0 if epochs >= warmup_epochs else epochs / warmup_epochs
        return replace(
            self,
            eps=self.eps * part,
            lam=self.resolved_lam * part,
            step_size=self.resolved_step_size * part or None,
            radius=self.resolved_radius or None,
        )

    def plain(self) -> dict[str, float | int | str]:
        """The resolved settings, which a resumed run must share."""
        return {
            "norm": self.p,
            "eps": float(self.eps),
            "steps": int(self.steps),
            "step_size": self.resolved_step_size,
            "lam": self.resolved_lam,
            "estimator": self.estimator,
            "radius": self.resolved_radius,
            "batch_norm": self.batch_norm,
            "renew_every": int(self.renew_every),
            "autocast": self.autocast,
        }
