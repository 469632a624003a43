"""The settings of local flatness regularization, their checks, and their defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from art_lfr.core.arguments import check_choice, check_flag, check_integer, check_number
from art_lfr.core.geometry import parse_norm
from art_lfr.errors import UsageError

ESTIMATORS = ("finite-difference", "exact")
BATCH_NORM_MODES = ("eval", "train")


@dataclass(frozen=True)
class NormDefaults:
    """Defaults of one norm: lengths as multiples of eps (a step's, of eps / steps), and a count."""

    step_size: float
    lam: float
    radius: float
    renew_every: int


# Chosen on validation data by benchmarks/defaults.py; docs/defaults.md has the experiment. In l-inf
# renewing every second gradient costs nothing, in l2 that is open: docs/performance.md.
DEFAULTS: dict[float, NormDefaults] = {
    math.inf: NormDefaults(step_size=2.0, lam=0.5, radius=0.25, renew_every=2),
    2.0: NormDefaults(step_size=2.0, lam=0.5, radius=0.25, renew_every=1),
    1.0: NormDefaults(step_size=2.0, lam=0.5, radius=0.25, renew_every=1),
}


@dataclass(frozen=True)
class LFRSettings:
    """The objective l(x) + lam * max over the eps-ball of ||grad l||_q, and how it is estimated.

    All lengths are in raw input units. `None` takes the default of the norm; lengths scale with
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
    renew_every: int | None = None
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
        check_integer("renew_every", self.renew_every, low=1, optional=True)
        check_flag("autocast", self.autocast)
        if self.eps == 0 and self.radius is None and self.estimator != "exact":
            raise UsageError(
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
        return DEFAULTS[self.p].step_size * self.eps / max(1, self.steps)

    @property
    def resolved_lam(self) -> float:
        """The weight of the penalty."""
        return DEFAULTS[self.p].lam * self.eps if self.lam is None else float(self.lam)

    @property
    def resolved_radius(self) -> float:
        """The finite-difference radius h."""
        return DEFAULTS[self.p].radius * self.eps if self.radius is None else float(self.radius)

    @property
    def resolved_renew_every(self) -> int:
        """In every so manieth ascent step both gradients are taken."""
        return DEFAULTS[self.p].renew_every if self.renew_every is None else int(self.renew_every)

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
            "renew_every": self.resolved_renew_every,
            "autocast": self.autocast,
        }
