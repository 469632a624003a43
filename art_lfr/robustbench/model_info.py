"""The files that RobustBench's leaderboard is made of, in a folder `model_info`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
from robustbench.utils import ModelInfo

from art_lfr.errors import UsageError
from art_lfr.storage.files import write_atomically

UNAGGREGATED = "unaggregated_results.csv"


def check_entry(directory: str | Path, dataset: str, model_name: str | None) -> None:
    """Raise ValueError before any work where an entry of that name could not be written."""
    for name, value in (("dataset", dataset), ("model_name", model_name)):
        if not isinstance(value, str) or not value or Path(value).name != value:
            raise UsageError(
                f"{name} is {value!r}; allowed with to_disk=True: a name that can be a file's"
            )
    parent = Path(directory)
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(
            f"directory is {str(directory)!r}; allowed: a directory that can be written to"
        )


def update_entry(
    directory: str | Path, dataset: str, threat_model: str, model_name: str, fields: dict[str, Any]
) -> Path:
    """Write an entry's JSON, or change these fields in it; the path.

    The fields and their order are RobustBench's; accuracies are per cent, as strings. An `eps` that
    stands there as a fraction ("8/255") of the same value is left so, as the leaderboard shows it.
    """
    path = Path(directory) / dataset / threat_model / f"{model_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    given = dataclasses.asdict(ModelInfo(dataset=dataset, **fields))
    entry = given
    if path.exists():
        entry = json.loads(path.read_text())
        if _same_number(entry.get("eps"), given["eps"]):
            given["eps"] = None
        entry |= {key: value for key, value in given.items() if value is not None}
    write_atomically(path, json.dumps(entry, indent=2))
    return path


def per_cent(share: float) -> str:
    """An accuracy as the leaderboard has it."""
    return str(round(share * 100, 2))


def read_reference(directory: str | Path, dataset: str) -> dict[tuple[str, int], float] | None:
    """AlexNet's accuracy under each (corruption, severity), or None where no file has it."""
    path = Path(directory) / dataset / "corruptions" / UNAGGREGATED
    if not path.exists():
        return None
    table = _read_table(path)
    rows = table[table.index == "AlexNet"]
    if not len(rows):
        return None
    keys: Any = table.columns
    return {key: float(value) for key, value in zip(keys, rows.iloc[-1].tolist(), strict=True)}


def append_unaggregated(
    directory: str | Path,
    dataset: str,
    model_name: str,
    accuracies: Mapping[tuple[str, int], float],
) -> None:
    """Add a model's row of accuracies under each corruption to RobustBench's table of them."""
    path = Path(directory) / dataset / "corruptions" / UNAGGREGATED
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(dict(accuracies), index=[model_name])
    if path.exists():
        table = pd.concat([_read_table(path), table])
    write_atomically(path, table.to_csv())


def _read_table(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, header=[0, 1], index_col=0)
    keys: Any = table.columns
    table.columns = pd.MultiIndex.from_tuples([(name, int(severity)) for name, severity in keys])
    return table


def _same_number(text: object, value: float | None) -> bool:
    """Whether a string holds, as a decimal or a fraction, this number."""
    if not isinstance(text, str) or value is None:
        return False
    try:
        return abs(float(Fraction(text.replace(" ", ""))) - value) <= 1e-6 * abs(value)
    except (ValueError, ZeroDivisionError):
        return False
