"""`autoattack.state`: what a file of a run tells those who did not start it."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from art_lfr.autoattack.state import read_run
from art_lfr.errors import UsageError
from art_lfr.storage.files import write_atomically
from art_lfr.storage.records import unpack

__all__ = ["EvaluationState"]

SUMMARY = "art-lfr AutoAttack summary"
SUMMARY_KEYS = {"attacks_to_run", "run_attacks", "robust_flags", "clean_accuracy"}


class RobustFlags(torch.Tensor):
    """A boolean tensor that has a mean: RobustBench asks for it, torch has none for booleans."""

    def mean(self, *arguments: Any, **keywords: Any) -> Tensor:
        """The share of True, in float64, so that it is the very quotient of the two counts."""
        return self.as_subclass(Tensor).double().mean(*arguments, **keywords)


class EvaluationState:
    """Which attacks were run, and which samples withstood them.

    `from_disk` reads the state file of a run, which has more: adversarial examples, position and
    random states. `to_disk` writes what is here, as JSON, and never over the file of a run.
    """

    def __init__(
        self,
        _attacks_to_run: Iterable[str],
        path: str | Path | None = None,
        _run_attacks: Iterable[str] = (),
        _robust_flags: Tensor | None = None,
        _clean_accuracy: float = math.nan,
    ) -> None:
        self.path = None if path is None else Path(path)
        self._attacks_to_run = set(_attacks_to_run)
        self._run_attacks = set(_run_attacks)
        self._robust_flags = _with_mean(_robust_flags)
        self._clean_accuracy = _clean_accuracy

    @classmethod
    def from_disk(cls, path: str | Path) -> EvaluationState:
        """Read a state; FileNotFoundError or ValueError, naming the path, where there is none."""
        path = Path(path)
        content = _read_summary(path)
        if content is None:
            run = read_run(path)
            attacks = run["identity"]["attacks"]
            content = {
                "attacks_to_run": attacks,
                "run_attacks": attacks[: run["done"]],
                "robust_flags": unpack(run["robust"], run["identity"]["samples"]),
                "clean_accuracy": run["accuracies"]["clean"],
            }
        flags, accuracy = content["robust_flags"], content["clean_accuracy"]
        return cls(
            content["attacks_to_run"],
            path,
            content["run_attacks"],
            None if flags is None else torch.as_tensor(flags),
            math.nan if accuracy is None else accuracy,
        )

    def to_disk(self, force: bool = False) -> None:
        """Write the state; `force` is accepted, and not needed, as every call writes.

        Raises ValueError where `path` holds a run that may be resumed.
        """
        if self.path is None:
            return
        if self.path.exists() and _read_summary(self.path) is None:
            raise UsageError(
                f"path is {str(self.path)!r}, which holds a run that may be resumed, or something "
                "else; allowed: another path"
            )
        flags = self._robust_flags
        content = {
            "kind": SUMMARY,
            "attacks_to_run": sorted(self._attacks_to_run),
            "run_attacks": sorted(self._run_attacks),
            "robust_flags": None if flags is None else flags.tolist(),
            "clean_accuracy": None if math.isnan(self._clean_accuracy) else self._clean_accuracy,
        }
        write_atomically(self.path, json.dumps(content))

    @property
    def robust_flags(self) -> RobustFlags | None:
        """Whether each sample is still robust, (N,), or None before the first attack."""
        return self._robust_flags

    @robust_flags.setter
    def robust_flags(self, robust_flags: Tensor) -> None:
        self._robust_flags = _with_mean(robust_flags)
        self.to_disk(force=True)

    @property
    def run_attacks(self) -> set[str]:
        """The attacks that are finished."""
        return self._run_attacks

    def add_run_attack(self, attack: str) -> None:
        """Count an attack as finished."""
        self._run_attacks.add(attack)
        self.to_disk()

    @property
    def attacks_to_run(self) -> set[str]:
        """All attacks of the run."""
        return self._attacks_to_run

    @property
    def clean_accuracy(self) -> float:
        """The accuracy without an attack; NaN before it is known."""
        return self._clean_accuracy

    @clean_accuracy.setter
    def clean_accuracy(self, accuracy: float) -> None:
        self._clean_accuracy = accuracy
        self.to_disk(force=True)

    @property
    def robust_accuracy(self) -> float:
        """The share of robust samples; ValueError before the first attack."""
        if self._robust_flags is None:
            raise UsageError("robust_flags is None; allowed: a state whose run has begun")
        # A run ends early where no sample is left.
        if self._attacks_to_run - self._run_attacks and bool(self._robust_flags.any()):
            warnings.warn("robust_accuracy before all attacks have been run", stacklevel=2)
        return float(self._robust_flags.mean())


def _read_summary(path: Path) -> dict[str, Any] | None:
    """What `to_disk` wrote, or None where the file is something else."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return None
    known = isinstance(content, dict) and content.get("kind") == SUMMARY
    return content if known and content.keys() >= SUMMARY_KEYS else None


def _with_mean(flags: Tensor | None) -> RobustFlags | None:
    return None if flags is None else flags.detach().bool().as_subclass(RobustFlags)
