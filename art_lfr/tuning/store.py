"""Finished trials on disk, so that a killed tuning goes on where it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from art_lfr.core.arguments import Array
from art_lfr.errors import UsageError
from art_lfr.storage.records import read_record, write_record
from art_lfr.tuning.candidates import Candidate
from art_lfr.tuning.results import Trial

FORMAT = 1


class TrialStore:
    """One JSON file for each finished trial, named by a hash of all that shapes it.

    Several tunings may share the directory; None keeps nothing. Raises ValueError for a directory
    that is a file.
    """

    def __init__(self, directory: str | Path | None, identity: str) -> None:
        self.directory = None if directory is None else Path(directory)
        self.identity = identity
        if self.directory is not None:
            if self.directory.exists() and not self.directory.is_dir():
                raise UsageError(f"state_dir is {str(directory)!r}, a file; allowed: a directory")
            self.directory.mkdir(parents=True, exist_ok=True)

    def _path(self, candidate: Candidate) -> Path:
        assert self.directory is not None
        shaped_by = json.dumps([FORMAT, self.identity, vars(candidate)], sort_keys=True)
        return self.directory / f"{hashlib.sha256(shaped_by.encode()).hexdigest()[:16]}.json"

    def load(self, candidate: Candidate) -> Trial | None:
        """The trial as it finished before, or None; ValueError for a damaged file."""
        if self.directory is None or not (path := self._path(candidate)).exists():
            return None
        saved = read_record(path)
        try:
            return Trial(
                candidate,
                clean=_array(saved["clean"]),
                robust=_array(saved["robust"]),
                seconds=float(saved["seconds"]),
                problem=str(saved["problem"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"state_dir has {path.name}, which is damaged ({error!r}); allowed: files as they "
                "were written (delete this one to repeat its trial)"
            ) from error

    def save(self, trial: Trial) -> None:
        """Write the trial atomically."""
        if self.directory is None:
            return
        content: dict[str, Any] = {
            "candidate": vars(trial.candidate),
            "clean": _text(trial.clean),
            "robust": _text(trial.robust),
            "seconds": trial.seconds,
            "problem": trial.problem,
        }
        write_record(self._path(trial.candidate), content)


def _text(correct: Array) -> str:
    """Booleans (N,) as N characters, 1 for an image that is right."""
    return "".join("1" if right else "0" for right in correct)


def _array(text: str) -> Array:
    if not text or set(text) - {"0", "1"}:
        raise UsageError("no images")
    return np.array([character == "1" for character in text])
