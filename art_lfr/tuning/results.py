"""The settings that tuning tries, one trial for each, and the one it proposes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from art_lfr.core.arguments import Array
from art_lfr.core.imports import data_frame
from art_lfr.core.intervals import Difference, paired_difference, wilson_interval
from art_lfr.core.settings import DEFAULTS
from art_lfr.core.tables import Shown, Table

if TYPE_CHECKING:
    import pandas


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


# Names of attacks and presets in which an attack needs no gradient.
GRADIENT_FREE = {"Square", "AutoAttack", "quick", "autoattack"}
# Factors of the default's lam, radius and step. With lam = 2 * radius, as in the first three, the
# finite-difference penalty is l(x' + h v) - l(x' - h v) with weight one. By docs/defaults.md lam
# matters most: a small eps needs a larger one, a large eps a smaller one.
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


def candidates(
    p: float, max_iter: int, estimator: str = "finite-difference"
) -> tuple[Candidate, ...]:
    """The settings to try for one norm and K: the default first, then the most informative ones.

    The exact estimator has no radius: of settings that differ in the radius alone the first stays.
    """
    default = DEFAULTS[p]
    different: dict[tuple[float, ...], Candidate] = {}
    for lam, radius, step in AROUND:
        candidate = Candidate(
            lam=lam * default.lam,
            radius=radius * default.radius,
            step=step * default.step(max_iter) * max_iter,
        )
        exact = (candidate.lam, candidate.step)
        key = exact if estimator == "exact" else (*exact, candidate.radius)
        different.setdefault(key, candidate)
    return tuple(different.values())


@dataclass(frozen=True, eq=False)
class Trial:
    """One training with one setting, judged on the held-out images.

    `clean` and `robust` (N,) say which images are right without an attack, and in the worst case
    of all attacks. `seconds` are those of training and judging together. `problem` says why a
    training failed; such a trial has no image right.
    """

    candidate: Candidate
    clean: Array
    robust: Array
    seconds: float
    problem: str = ""

    @property
    def clean_accuracy(self) -> float:
        """The share of held-out images that are right without an attack."""
        return float(self.clean.mean())

    @property
    def robust_accuracy(self) -> float:
        """The share of held-out images that are right in the worst case."""
        return float(self.robust.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of `robust_accuracy`."""
        return wilson_interval(int(self.robust.sum()), len(self.robust))


@dataclass(frozen=True, eq=False)
class Tuning(Shown):
    """The trials in the order of the list, the default first, and the setting to train with.

    `eps` is in raw input units; `minutes` and `clean_floor` are what was asked for; `settings`
    are those that all trials share; `not_tried` had no time left.
    """

    eps: float
    norm: str
    max_iter: int
    clean_floor: float | None
    minutes: float
    trials: tuple[Trial, ...]
    not_tried: tuple[Candidate, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def default(self) -> Trial:
        """The trial of the package's own defaults."""
        return self.trials[0]

    @cached_property
    def eligible(self) -> tuple[Trial, ...]:
        """The trials whose clean accuracy is at least the floor."""
        floor = self.clean_floor or 0.0
        return tuple(t for t in self.trials if not t.problem and t.clean_accuracy >= floor)

    @property
    def reaches_floor(self) -> bool:
        """Whether any trial has the clean accuracy that was asked for."""
        return bool(self.eligible)

    def against_default(self, trial: Trial) -> Difference:
        """Its worst-case accuracy less the default's, in points, image by image."""
        return paired_difference([trial.robust], [self.default.robust], [0])

    @cached_property
    def proposal(self) -> Trial:
        """The first trial with the highest worst-case accuracy at or above the floor.

        The default where it reaches the floor and nothing is ahead of it by more than the noise
        (the 95 % interval of the paired difference lies above 0). Where nothing reaches the
        floor, the highest clean accuracy.
        """
        if not self.eligible:
            return max(self.trials, key=lambda t: (t.clean_accuracy, t.robust_accuracy))
        chosen = self.eligible
        if self.default in chosen:
            ahead = tuple(t for t in chosen if self.against_default(t).low > 0)
            chosen = ahead or (self.default,)
        return max(chosen, key=lambda t: t.robust_accuracy)

    @property
    def _lengths(self) -> dict[str, float]:
        return self.proposal.candidate.lengths(self.eps, self.max_iter)

    @property
    def lam(self) -> float:
        """The proposed weight of the penalty, raw input units."""
        return self._lengths["lam"]

    @property
    def radius(self) -> float:
        """The proposed finite-difference radius, raw input units."""
        return self._lengths["radius"]

    @property
    def eps_step(self) -> float:
        """The proposed length of an ascent step, raw input units."""
        return self._lengths["eps_step"]

    @property
    def seconds(self) -> float:
        """Seconds of all trials, those of earlier calls that were taken over included."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def overrun(self) -> float:
        """Seconds beyond the budget; 0 where it was kept."""
        return max(0.0, self.seconds - 60 * self.minutes)

    @property
    def reason(self) -> str:
        """Why this setting is proposed, in one sentence."""
        best, others = self.proposal, len(self.eligible) - 1
        if not self.eligible:
            return (
                f"no setting tried reaches a clean accuracy of {100 * (self.clean_floor or 0):g} "
                f"%: this one comes closest, with {100 * best.clean_accuracy:.1f} %"
            )
        if best is self.default:
            if others == 0:
                return "the default: no other setting was tried, or none that reaches the floor"
            return f"the default: none of {others} other settings beats it by more than the noise"
        if self.default.problem:
            return "the highest worst case; the default's own training failed"
        if self.default not in self.eligible:
            return "the highest worst case at or above the floor, which the default does not reach"
        mean, low, high, _ = self.against_default(best)
        return f"{mean:+.1f} points against the default (95 % interval {low:+.1f} to {high:+.1f})"

    def to_frame(self) -> pandas.DataFrame:
        """One row a trial: lengths in raw units and multiples of eps, accuracies as shares.

        `against_default`, with its interval, is in points.
        """
        rows = []
        for trial in self.trials:
            low, high = trial.interval
            d = self.against_default(trial)
            rows.append(
                {
                    **trial.candidate.lengths(self.eps, self.max_iter),
                    **{f"{name}_multiple": value for name, value in vars(trial.candidate).items()},
                    "clean_accuracy": trial.clean_accuracy,
                    "robust_accuracy": trial.robust_accuracy,
                    "low": low,
                    "high": high,
                    "against_default": d.mean,
                    "against_default_low": d.low,
                    "against_default_high": d.high,
                    "seconds": trial.seconds,
                    "problem": trial.problem,
                    "proposed": trial is self.proposal,
                }
            )
        return data_frame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values per image, as JSON types."""
        return {
            "proposal": {
                **self._lengths,
                "multiples": dict(vars(self.proposal.candidate)),
                "reason": self.reason,
                "reaches_floor": self.reaches_floor,
            },
            **{name: getattr(self, name) for name in ("eps", "norm", "max_iter", "clean_floor")},
            "settings": dict(self.settings),
            "minutes": self.minutes,
            "seconds": self.seconds,
            "overrun_seconds": self.overrun,
            "held_out": len(self.default.clean),
            "trials": self.to_frame().to_dict(orient="records"),
            "not_tried": [dict(vars(candidate)) for candidate in self.not_tried],
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def shown(self) -> Table:
        """A row for each trial, the proposal below."""
        header = ["", "lam, radius, step", "clean %", "worst case %", "against default", "s"]
        cells = [self._cells(trial) for trial in self.trials]
        return Table(header, cells, self._notes(), left=(0, 1))

    def _cells(self, trial: Trial) -> list[str]:
        """The row of one trial; lengths as multiples of eps, accuracies in per cent."""
        low, high = trial.interval
        d = self.against_default(trial)
        return [
            "*" if trial is self.proposal else "",
            _multiples(trial.candidate),
            f"{100 * trial.clean_accuracy:.1f}",
            f"{100 * trial.robust_accuracy:.1f} ({100 * low:.0f}, {100 * high:.0f})",
            "" if trial is self.default else f"{d.mean:+.1f} ({d.low:+.1f}, {d.high:+.1f})",
            f"{trial.seconds:.0f}",
        ]

    def _notes(self) -> list[str]:
        """What stands below the table."""
        default, attacks = self.default, self.settings.get("attacks", [])
        parts = [
            f"Proposal (*): lam {self.lam:.6g}, radius {self.radius:.6g}, eps_step "
            f"{self.eps_step:.6g}: {self.reason}.",
            "The default is the trainer's own, lam eps / 2 and radius eps / 4; `art-lfr train` may "
            "take others for a data set that has a name.",
            f"eps {self.eps:g}, norm {self.norm}. In the table lam and radius are multiples of "
            f"eps, step of eps / {self.max_iter}; accuracies are per cent of {len(default.clean)} "
            f"held-out images, the worst case is over {', '.join(attacks)}, in brackets 95 % "
            "intervals. One seed each: another may order close settings otherwise.",
        ]
        if max(t.clean_accuracy for t in self.trials) <= self.settings.get("largest_class", 0):
            parts.append(
                "No trial did better than naming one class for every image, so that this proposal "
                "says nothing: train for more epochs, or with another learning rate."
            )
        if attacks and not GRADIENT_FREE & set(attacks):
            parts.append(
                "No attack without gradients was used: a network that masks its own looks good."
            )
        for trial in self.trials:
            if trial.problem:
                parts.append(f"{_multiples(trial.candidate)}: {trial.problem}")
        used = f"{self.seconds / 60:.1f} of {self.minutes:g} minutes used"
        if self.overrun:
            used += f", {self.overrun:.0f} s more than asked for"
        if self.not_tried:
            listed = "; ".join(map(_multiples, self.not_tried))
            used += f"; no time was left for (lam, radius, step) {listed}"
        return [*parts, f"{used}."]


def _multiples(candidate: Candidate) -> str:
    return f"{candidate.lam:.4g}, {candidate.radius:.4g}, {candidate.step:.4g}"
