"""The settings that tuning tries, one trial for each, and the one it proposes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from art_lfr.core.arguments import Array
from art_lfr.core.imports import data_frame
from art_lfr.core.intervals import (
    Difference,
    level_for,
    paired_difference,
    wilson_interval,
)
from art_lfr.core.names import parse_norm
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


def default_candidate(p: float, max_iter: int) -> Candidate:
    """The package's own defaults for one norm and K."""
    default = DEFAULTS[p]
    return Candidate(default.lam, default.radius, default.step(max_iter) * max_iter)


def candidates(
    p: float,
    max_iter: int,
    estimator: str = "finite-difference",
    reference: Candidate | None = None,
) -> tuple[Candidate, ...]:
    """The settings to try for one norm and K: the reference first, then the most informative ones.

    These are the package's defaults, which are the reference where it is None, and around them.
    The exact estimator has no radius: of settings that differ in the radius alone the first stays.
    """
    default = default_candidate(p, max_iter)
    around = [
        Candidate(lam * default.lam, radius * default.radius, step * default.step)
        for lam, radius, step in AROUND
    ]
    different: dict[tuple[float, ...], Candidate] = {}
    for candidate in [*([] if reference is None else [reference]), *around]:
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
    """The trials in the order of the list, the reference first, and the setting to train with.

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
    def reference(self) -> Trial:
        """The trial that the others are compared with."""
        return self.trials[0]

    @property
    def _default(self) -> Candidate:
        return default_candidate(parse_norm(self.norm), self.max_iter)

    @property
    def _called(self) -> str:
        """What the reference is called."""
        return "default" if self.reference.candidate == self._default else "reference"

    @property
    def compared(self) -> int:
        """How many trials are compared with the reference."""
        return len(self.trials) - 1

    @cached_property
    def eligible(self) -> tuple[Trial, ...]:
        """The trials whose clean accuracy is at least the floor."""
        floor = self.clean_floor or 0.0
        return tuple(t for t in self.trials if not t.problem and t.clean_accuracy >= floor)

    @property
    def reaches_floor(self) -> bool:
        """Whether any trial has the clean accuracy that was asked for."""
        return bool(self.eligible)

    def against_reference(self, trial: Trial) -> Difference:
        """Its worst-case accuracy less the reference's, in points, image by image.

        The intervals of all the trials hold together: each is made for as many as are compared.
        """
        return paired_difference([trial.robust], [self.reference.robust], [0], made=self.compared)

    @cached_property
    def proposal(self) -> Trial:
        """The first trial with the highest worst-case accuracy at or above the floor.

        The reference where it reaches the floor and nothing is ahead of it by more than the noise
        (the interval of `against_reference` lies above 0). Where nothing reaches the floor, the
        highest clean accuracy.
        """
        if not self.eligible:
            return max(self.trials, key=lambda t: (t.clean_accuracy, t.robust_accuracy))
        chosen = self.eligible
        if self.reference in chosen:
            ahead = tuple(t for t in chosen if self.against_reference(t).low > 0)
            chosen = ahead or (self.reference,)
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
        called = f"the {self._called}"
        if not self.eligible:
            return (
                f"no setting tried reaches a clean accuracy of {100 * (self.clean_floor or 0):g} "
                f"%: this one comes closest, with {100 * best.clean_accuracy:.1f} %"
            )
        if best is self.reference:
            if others == 0:
                return f"{called}: no other setting was tried, or none that reaches the floor"
            return f"{called}: none of {others} other settings beats it by more than the noise"
        if self.reference.problem:
            return f"the highest worst case; {called}'s own training failed"
        if self.reference not in self.eligible:
            return f"the highest worst case at or above the floor, which {called} does not reach"
        mean, low, high, _ = self.against_reference(best)
        return (
            f"{mean:+.1f} points against {called} ({low:+.1f} to {high:+.1f}, an interval for all "
            f"of {self.compared} at once)"
        )

    def to_frame(self) -> pandas.DataFrame:
        """One row a trial: lengths in raw units and multiples of eps, accuracies as shares.

        `against_reference`, with its interval, is in points.
        """
        rows = []
        for trial in self.trials:
            low, high = trial.interval
            d = self.against_reference(trial)
            rows.append(
                {
                    **trial.candidate.lengths(self.eps, self.max_iter),
                    **{f"{name}_multiple": value for name, value in vars(trial.candidate).items()},
                    "clean_accuracy": trial.clean_accuracy,
                    "robust_accuracy": trial.robust_accuracy,
                    "low": low,
                    "high": high,
                    "against_reference": d.mean,
                    "against_reference_low": d.low,
                    "against_reference_high": d.high,
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
            "held_out": len(self.reference.clean),
            "trials": self.to_frame().to_dict(orient="records"),
            "not_tried": [dict(vars(candidate)) for candidate in self.not_tried],
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def shown(self) -> Table:
        """A row for each trial, the proposal below."""
        against = f"against {self._called}"
        header = ["", "lam, radius, step", "clean %", "worst case %", against, "s"]
        cells = [self._cells(trial) for trial in self.trials]
        return Table(header, cells, self._notes(), left=(0, 1))

    def _cells(self, trial: Trial) -> list[str]:
        """The row of one trial; lengths as multiples of eps, accuracies in per cent."""
        low, high = trial.interval
        d = self.against_reference(trial)
        label = "default" if trial.candidate == self._default else ""
        label = self._called if trial is self.reference else label
        return [
            "*" if trial is self.proposal else "",
            _multiples(trial.candidate) + (label and f" ({label})"),
            f"{100 * trial.clean_accuracy:.1f}",
            f"{100 * trial.robust_accuracy:.1f} ({100 * low:.0f}, {100 * high:.0f})",
            "" if trial is self.reference else f"{d.mean:+.1f} ({d.low:+.1f}, {d.high:+.1f})",
            f"{trial.seconds:.0f}",
        ]

    def _notes(self) -> list[str]:
        """What stands below the table."""
        attacks = self.settings.get("attacks", [])
        given = (
            "the setting that was given (of `art-lfr tune`: what `art-lfr train` takes for this "
        )
        reference = f"The reference is {given}data); the" if self._called == "reference" else "The"
        parts = [
            f"Proposal (*): lam {self.lam:.6g}, radius {self.radius:.6g}, eps_step "
            f"{self.eps_step:.6g}: {self.reason}.",
            f"{reference} default is the trainer's own, lam eps / 2 and radius eps / 4.",
            f"eps {self.eps:g}, norm {self.norm}. In the table lam and radius are multiples of "
            f"eps, step of eps / {self.max_iter}; accuracies are per cent of "
            f"{len(self.reference.clean)} held-out images, the worst case is over "
            f"{', '.join(attacks)}, in brackets 95 % intervals. One seed each: another may order "
            "close settings otherwise.",
        ]
        if self.compared > 1:
            parts.append(
                f"Of {self.compared} settings one may look better by chance: the intervals of the "
                f"differences have {level_for(self.compared):.1f} % each, so that all of them "
                "hold with 95 % (Bonferroni)."
            )
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
