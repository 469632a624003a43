"""What an evaluation found: one row per attack, values per sample, and their printed forms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas

Array: TypeAlias = npt.NDArray[Any]

# The two-sided 95 % quantile of the normal distribution.
Z_95 = 1.959963984540054


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion, inside [0, 1].

    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n), p = successes / count.
    Source: Wilson, "Probable inference", JASA 1927.
    """
    if not 0 <= successes <= count or count == 0:
        raise ValueError(f"successes is {successes} of {count}; allowed: 0 to count, count > 0")
    share, z2 = successes / count, Z_95**2
    centre = share + z2 / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    scale = 1 + z2 / count
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == count else (centre + half) / scale
    return low, high


@dataclass(frozen=True)
class Row:
    """The accuracy under one attack: a share of `images`, with its 95 % Wilson interval."""

    name: str
    accuracy: float
    images: int
    low: float
    high: float
    seconds: float

    @classmethod
    def of(cls, name: str, correct: Array, seconds: float) -> Row:
        """The row of one attack from its correctness per sample, shape (N,)."""
        right, count = int(correct.sum()), len(correct)
        return cls(name, right / count, count, *wilson_interval(right, count), seconds)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy under attacks, their worst case per sample, and local flatness.

    `rows` start with "clean" and end with "worst case": right only where clean and every attack
    leave the sample right. `correct` maps each name to booleans, shape (N,); `flatness` has one
    value per sample, shape (N,), a lower bound of the local flatness (see `local_flatness`).
    """

    eps: float
    norm: str
    rows: tuple[Row, ...]
    correct: dict[str, Array]
    flatness: Array
    flatness_steps: int

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
        """The rows as a table: name, accuracy, low, high (shares), images, seconds."""
        import pandas

        columns = ["name", "accuracy", "low", "high", "images", "seconds"]
        frame: pandas.DataFrame = pandas.DataFrame([vars(row) for row in self.rows])[columns]
        return frame

    def to_markdown(self) -> str:
        """The table in Markdown, accuracies in per cent, with a line on flatness below."""
        return f"{self._table('github')}\n\n{self._flatness_line()}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return {
            "eps": self.eps,
            "norm": self.norm,
            "rows": [vars(row) for row in self.rows],
            "flatness": {**self.flatness_summary, "steps": self.flatness_steps},
            "per_sample": {
                "correct": {name: values.tolist() for name, values in self.correct.items()},
                "flatness": self.flatness.tolist(),
            },
        }

    def __str__(self) -> str:
        return f"{self._table('simple')}\n{self._flatness_line()}"

    def _table(self, style: str) -> str:
        from tabulate import tabulate

        cells = [
            [
                row.name,
                f"{100 * row.accuracy:.1f}",
                f"{100 * row.low:.1f} to {100 * row.high:.1f}",
                str(row.images),
                f"{row.seconds:.1f}",
            ]
            for row in self.rows
        ]
        header = ["attack", "accuracy %", "95 % interval", "images", "seconds"]
        # As strings: numbers would lose their last zeros.
        table: str = tabulate(
            cells,
            header,
            style,
            disable_numparse=True,
            colalign=("left", *["right"] * (len(header) - 1)),
        )
        return table

    def _flatness_line(self) -> str:
        found = self.flatness_summary
        return (
            f"eps {self.eps:g}, norm {self.norm}; local flatness: mean {found['mean']:.4g}, median "
            f"{found['median']:.4g}, 95th percentile {found['percentile_95']:.4g}"
        )


def summary(values: Array) -> dict[str, float]:
    """Mean, median and 95th percentile of values of shape (N,)."""
    return {
        "mean": float(np.mean(values)),
        "median": float(np.median(values)),
        "percentile_95": float(np.percentile(values, 95)),
    }
