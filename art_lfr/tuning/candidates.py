"""The settings that tuning tries, and their order."""

from __future__ import annotations

from dataclasses import dataclass

from art_lfr.core.settings import DEFAULTS


@dataclass(frozen=True)
class Candidate:
    """`lam` and `radius` as multiples of eps, `step` as a multiple of eps / max_iter."""

    lam: float
    radius: float
    step: float

    def lengths(self, eps: float, max_iter: int) -> dict[str, float]:
        """`lam`, `radius` and `eps_step` in raw input units, as the trainer takes them."""
        return {
            "lam": self.lam * eps,
            "radius": self.radius * eps,
            "eps_step": self.step * eps / max_iter,
        }


# Factors of the default's lam, radius and step. With lam = 2 * radius, as in the first three, the
# finite-difference penalty is l(x' + h v) - l(x' - h v) with weight one. By docs/defaults.md lam
# decides the most: small eps wants more of it, large eps less.
AROUND = (
    (1.0, 1.0, 1.0),
    (2.0, 2.0, 1.0),
    (0.5, 0.5, 1.0),
    (2.0, 1.0, 1.0),
    (1.0, 1.0, 0.5),
    (0.5, 1.0, 1.0),
    (4.0, 2.0, 1.0),
    (1.0, 1.0, 2.0),
    (1.0, 0.5, 1.0),
    (1.0, 2.0, 1.0),
)


def candidates(p: float, estimator: str = "finite-difference") -> tuple[Candidate, ...]:
    """The settings to try for one norm: the default first, then the most informative ones.

    The exact estimator has no radius: of those that differ in nothing else the first one stays.
    """
    default = DEFAULTS[p]
    found: dict[tuple[float, ...], Candidate] = {}
    for lam, radius, step in AROUND:
        candidate = Candidate(
            lam=lam * default.lam, radius=radius * default.radius, step=step * default.step_size
        )
        exact = (candidate.lam, candidate.step)
        key = exact if estimator == "exact" else (*exact, candidate.radius)
        found.setdefault(key, candidate)
    return tuple(found.values())
