"""Finished attacks of an evaluation on disk, so that a killed one goes on where it was."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from art_lfr.attacks.named import NamedAttack
from art_lfr.attacks.runner import AttackResult
from art_lfr.attacks.target import Target
from art_lfr.errors import UsageError
from art_lfr.storage.checkpoint import load_safely, to_plain
from art_lfr.storage.files import write_atomically
from art_lfr.storage.fingerprint import fingerprint

FORMAT = 1


class EvaluationStore:
    """One file per finished attack in a directory that belongs to one evaluation.

    Raises ValueError where the directory holds files of another model, data or settings, or
    damaged ones.
    """

    def __init__(self, directory: Path, target: Target) -> None:
        self.directory = directory
        ball = target.ball
        settings = {
            "eps": ball.eps,
            "p": ball.p,
            "low": ball.box.low.tolist(),
            "high": ball.box.high.tolist(),
            "seed": target.seed,
            "batch_size": target.batch_size,
        }
        self.identity = fingerprint(target.module, {"x": target.x, "y": target.y}, settings)
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"state_dir is {str(directory)!r}, a file; allowed: a directory")
        directory.mkdir(parents=True, exist_ok=True)

    def _path(self, attack: NamedAttack) -> Path:
        return self.directory / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', attack.name)}.attack.pt"

    @staticmethod
    def _settings(attack: NamedAttack) -> str:
        settings = {
            "name": attack.name,
            "threat": attack.threat.label,
            "images": attack.images,
            "parameters": attack.parameters,
        }
        return json.dumps(settings, sort_keys=True, default=str)

    def load(self, attack: NamedAttack) -> AttackResult | None:
        """What the attack found before, or None where it has not finished."""
        path = self._path(attack)
        if not path.exists():
            return None
        saved = load_safely(path)
        if (
            saved.get("format") != FORMAT
            or saved.get("identity") != self.identity
            or saved.get("attack") != self._settings(attack)
        ):
            raise UsageError(
                f"state_dir has {path.name} of another evaluation (model, data or settings "
                "differ); allowed: an empty directory, or that of the same evaluation"
            )
        return AttackResult(**saved["result"])

    def save(self, attack: NamedAttack, result: AttackResult) -> None:
        """Write the result atomically."""
        content = {
            "format": FORMAT,
            "identity": self.identity,
            "attack": self._settings(attack),
            "result": to_plain(vars(result), "result"),
        }
        write_atomically(self._path(attack), lambda file: torch.save(content, file))
