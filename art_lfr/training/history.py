"""The record of a run, epoch by epoch, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from art_lfr.core.tables import Shown, Table

# What a line or a table of an epoch shows, where it was measured, and its title.
COLUMNS = {
    "epoch": "epoch",
    "loss": "loss",
    "flatness": "flatness",
    "train_accuracy": "train %",
    "validation_accuracy": "validation %",
    "validation_robust_accuracy": "PGD-10 %",
    "seconds": "s",
}

# The words of a line, which has less room.
SHORT = {"flatness": "flat", "validation": "val", "PGD-10": "PGD"}


def cells(record: Mapping[str, float]) -> list[str]:
    """The figures of one epoch as text, accuracies in per cent; empty where not measured."""
    return [_text(name, record[name]) if name in record else "" for name in COLUMNS]


def line(record: Mapping[str, float], last_epoch: int) -> str:
    """One epoch in one line, of 80 columns where the numbers are not unusually long."""
    parts = []
    for (name, title), text in zip(COLUMNS.items(), cells(record), strict=True):
        word, _, unit = title.partition(" ")
        if not text or name in ("epoch", "seconds"):
            continue
        short = text if unit else f"{record[name]:.3g}"
        parts.append(f"{SHORT.get(word, word)} {short}{unit}")
    parts.append(f"{record['seconds']:.1f}s")
    return f"epoch {record['epoch']:.0f}/{last_epoch}: {', '.join(parts)}"


def _text(name: str, value: float) -> str:
    if name == "epoch":
        return f"{value:.0f}"
    if name.endswith("accuracy"):
        return f"{100 * value:.1f}"
    return f"{value:.1f}" if name == "seconds" else f"{value:.4g}"


class History(list[dict[str, float]], Shown):
    """One record per epoch of a trainer's life; a list that shows itself as a table.

    Accuracies in the records are shares; in the table they are per cent. `PGD-10` is on
    the first `monitor_samples` of the validation images.
    """

    def shown(self) -> Table:
        """A row for each epoch; columns that were never measured are left out."""
        used = [i for i, name in enumerate(COLUMNS) if any(name in record for record in self)]
        titles = list(COLUMNS.values())
        rows = [cells(record) for record in self]
        header = [titles[i] for i in used]
        return Table(header, [[row[i] for i in used] for row in rows], left=())

    def __repr__(self) -> str:
        return list.__repr__(self)

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[dict[str, float]]]]:
        return list, (list(self),)  # what is saved is a plain list, which every reader takes
