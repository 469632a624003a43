"""The result of an evaluation: one row per attack, values per sample, and their printed forms."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from art_lfr.core.arguments import Array
from art_lfr.core.imports import data_frame
from art_lfr.core.intervals import wilson_interval
from art_lfr.core.tables import Shown, Table

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Row:
    """The accuracy under one attack: a share of `images`, with its 95 % Wilson interval.

    `threat` is the threat model in which its examples count, such as "Linf 0.3". `distance` is
    the median over the attacked images of the distance of the closest example, for attacks that
    seek the closest (infinite where most were not fooled), else None. `details` are what the
    attack itself tells, such as the images that each part of AutoAttack leaves.
    """

    name: str
    accuracy: float
    images: int
    low: float
    high: float
    seconds: float
    threat: str = ""
    distance: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, correct: Array, seconds: float, **keywords: Any) -> Row:
        """The row of one attack from its correctness per sample, shape (N,)."""
        right, count = int(correct.sum()), len(correct)
        interval = wilson_interval(right, count)
        return cls(name, right / count, count, *interval, seconds, **keywords)


@dataclass(frozen=True)
class Evaluation(Shown):
    """Accuracy under attacks, their worst case per sample, and local flatness.

    `rows` start with "clean" and end with "worst case": right only where clean and every attack
    that ran on all images in the threat model of the evaluation leave the sample right. `correct`
    maps each name to booleans, one for each image of its row, the first ones of x; `flatness` has
    one value per sample, shape (N,), a lower bound of the local flatness (see `local_flatness`).
    `metrics` are ART's, where asked for; `notes` say what to know when reading the table. `weights`
    say where the command line found the network: "file", and "eps", "norm" and "data" of its
    training, None where the file does not say them.
    """

    eps: float
    norm: str
    rows: tuple[Row, ...]
    correct: dict[str, Array]
    flatness: Array
    flatness_steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    weights: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Row:
        """The row of that name; KeyError with the names that there are."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are {', '.join(row.name for row in self.rows)}")

    @property
    def clean(self) -> Row:
        """Accuracy without attack."""
        return self["clean"]

    @property
    def worst_case(self) -> Row:
        """Accuracy counting a sample only where no attack succeeds."""
        return self["worst case"]

    @property
    def flatness_summary(self) -> dict[str, float]:
        """Mean, median and 95th percentile of the flatness over samples."""
        return summary(self.flatness)

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a table: accuracy, low and high are shares, distance in raw units."""
        columns = ["name", "accuracy", "low", "high", "images", "seconds", "threat", "distance"]
        frame: pandas.DataFrame = data_frame([vars(row) for row in self.rows])[columns]
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types; what is NaN or infinite is None."""
        rows = [{**vars(row), "details": dict(row.details)} for row in self.rows]
        for row in rows:
            row["distance"] = finite_or_none(row["distance"])
        return {
            "eps": self.eps,
            "norm": self.norm,
            "rows": rows,
            "flatness": {
                **{name: finite_or_none(value) for name, value in self.flatness_summary.items()},
                "steps": self.flatness_steps,
            },
            "metrics": {name: finite_or_none(value) for name, value in self.metrics.items()},
            "notes": list(self.notes),
            **({"weights": dict(self.weights)} if self.weights else {}),
            "per_sample": {
                "correct": {name: values.tolist() for name, values in self.correct.items()},
                "flatness": [finite_or_none(value) for value in self.flatness.tolist()],
            },
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def shown(self) -> Table:
        """One row per attack, the rest below."""
        columns = {
            "attack": [row.name for row in self.rows],
            "within": [row.threat for row in self.rows],
            "accuracy %": [f"{100 * row.accuracy:.1f}" for row in self.rows],
            "95 % interval": [f"{100 * row.low:.1f} to {100 * row.high:.1f}" for row in self.rows],
            "images": [str(row.images) for row in self.rows],
            "s": [f"{row.seconds:.1f}" for row in self.rows],
        }
        if {row.threat for row in self.rows} <= {"", self.worst_case.threat}:
            del columns["within"]
        return Table(list(columns), list(zip(*columns.values(), strict=True)), self.lines())

    def lines(self) -> list[str]:
        """What stands below the table: flatness, metrics, details and notes."""
        flatness = self.flatness_summary
        lines = [
            f"eps {self.eps:g}, norm {self.norm}; local flatness: mean {flatness['mean']:.4g}, "
            f"median {flatness['median']:.4g}, 95th percentile {flatness['percentile_95']:.4g}"
        ]
        if self.weights:
            eps, norm, data = (self.weights[name] for name in ("eps", "norm", "data"))
            how = "the file does not say at which eps they were trained"
            if eps is not None:
                on = "" if data is None else f" on {data}"
                how = f"trained{on} at eps {eps:g}, norm {norm}"
            lines.append(f"weights: {self.weights['file']}, {how}")
        if self.metrics:
            lines.append("; ".join(f"{name} {value:.4g}" for name, value in self.metrics.items()))
        if any(row.threat.startswith("L0 ") for row in self.rows):
            lines.append("L0 is the number of values that an attack changes, one for each channel")
        for row in self.rows:
            if row.distance is not None:
                finite = math.isfinite(row.distance)
                size = f"{row.distance:.3g}" if finite else "none: most images withstood"
                lines.append(f"{row.name}: median distance of the closest example {size}")
            if "still_correct" in row.details:
                parts = row.details["still_correct"].items()
                steps = ", ".join(f"{part} {count}" for part, count in parts)
                lines.append(f"{row.name}, images still right after each part: {steps}")
        return [*lines, *self.notes]


def finite_or_none(value: float | None) -> float | None:
    """The number, as JSON can have it."""
    return value if value is not None and math.isfinite(value) else None


def summary(values: Array) -> dict[str, float]:
    """Mean, median and 95th percentile of values of shape (N,); NaN where one is."""
    with np.errstate(invalid="ignore"):
        return {
            "mean": float(np.mean(values)),
            "median": float(np.median(values)),
            "percentile_95": float(np.percentile(values, 95)),
        }
