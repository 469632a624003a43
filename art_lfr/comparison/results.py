"""The finished runs of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from art_lfr.comparison.judging import unpack
from art_lfr.comparison.plan import Comparison
from art_lfr.comparison.runner import read_result, result_path
from art_lfr.core.intervals import Difference, paired_difference

# A baseline is within the time of a method where it takes at most so much of it.
TIME_TOLERANCE = 1.05
WORST = "worst case"


class Results:
    """The finished runs of a comparison.

    `runs` are the JSON contents, in the order of the plan; `planned` says how many there will be.
    """

    def __init__(self, comparison: Comparison, runs: Sequence[Mapping[str, Any]]) -> None:
        self.comparison = comparison
        self.runs = list(runs)
        self.planned = sum(1 for _ in comparison.runs())

    @classmethod
    def read(cls, comparison: Comparison, directory: Path) -> Results:
        """Those whose results lie in `directory`."""
        finished = [r for r in comparison.runs() if result_path(r, directory).exists()]
        return cls(comparison, [read_result(run, directory) for run in finished])

    def of(self, method: str) -> dict[tuple[int, int], Mapping[str, Any]]:
        """A method's runs, by seed and split."""
        return {(r["seed"], r["split"]): r for r in self.runs if r["method"] == method}

    @property
    def methods(self) -> list[str]:
        """The methods that have a finished run, in the order of the plan."""
        names = [str(method["name"]) for method in self.comparison.methods]
        return [name for name in names if self.of(name)]

    def seconds(self, method: str) -> float:
        """Mean training time of a method, seconds of one core; of trainings that reached their end.

        Where none did, of all.
        """
        found = list(self.of(method).values())
        found = [run for run in found if "stopped" not in run] or found
        return float(np.mean([run["times"][-1]["cpu_seconds"] for run in found]))

    def epochs(self, method: str) -> int:
        """Epochs that a method's runs are planned to have."""
        return int(next(iter(self.of(method).values()))["settings"]["epochs"])

    def difference(self, method: str, other: str) -> Difference:
        """Worst-case accuracy of a method less that of another, over runs that both have."""
        mine, theirs = self.of(method), self.of(other)
        pairs = [key for key in mine if key in theirs]
        return paired_difference(
            [_worst(mine[key]) for key in pairs],
            [_worst(theirs[key]) for key in pairs],
            [split for _, split in pairs],
        )

    def baseline(self, method: str, *, equal_time: bool) -> str | None:
        """The best PGD adversarial training with as many epochs, or within the method's time.

        The best on the runs (seed and split) that it shares with the method.
        """
        own = self.of(method)
        found: dict[str, float] = {}
        for name in self.methods:
            runs = self.of(name)
            kind = next(iter(runs.values()))["settings"]["kind"]
            if kind != "pgd" or name == method or not set(runs) & set(own):
                continue
            within = self.seconds(name) <= TIME_TOLERANCE * self.seconds(method)
            if within if equal_time else self.epochs(name) == self.epochs(method):
                rates = [run["accuracy"][WORST] for key, run in runs.items() if key in own]
                found[name] = sum(rates) / len(rates)
        return max(found, key=lambda name: found[name]) if found else None


def _worst(run: Mapping[str, Any]) -> Any:
    first, last = run["judged"]["images"]
    return unpack(run["correct"][WORST], last - first)
