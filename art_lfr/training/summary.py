"""Training records in TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from art_lfr.errors import MissingLibraryError, WrongTypeError


def open_summary(summary_writer: Any) -> Callable[[dict[str, float]], None] | None:
    """A function that writes one epoch's record, or None.

    `summary_writer` is False (nothing), True (./runs/...), a path, or an object with
    `add_scalar`, such as a `SummaryWriter`. Raises ImportError with the pip line where TensorBoard
    is missing, TypeError for anything else.
    """
    if summary_writer is False or summary_writer is None:
        return None
    writer = summary_writer
    if not hasattr(writer, "add_scalar"):
        if summary_writer is not True and not isinstance(summary_writer, str | Path):
            raise WrongTypeError(
                f"summary_writer is {summary_writer!r}; allowed: False, True, a path, or an "
                "object with `add_scalar`"
            )
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingLibraryError(
                'summary_writer needs TensorBoard: pip install "art-lfr[plots]"'
            ) from error
        directory = None if summary_writer is True else str(summary_writer)
        writer = SummaryWriter(log_dir=directory)

    def write(record: dict[str, float]) -> None:
        for name, value in record.items():
            if name != "epoch":
                writer.add_scalar(f"lfr/{name}", value, int(record["epoch"]))
        if hasattr(writer, "flush"):
            writer.flush()

    return write
