"""Where a run of AutoAttack stands, and the two files that hold it.

The state file is JSON and replaced atomically. The adversarial examples lie beside it as plain
numbers, in `<name>.examples`, which only grows, so that a batch writes its own examples and not all
of them again. The state says how many of them count: what a kill left behind them is overwritten.
Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from art_lfr.autoattack.backend import backend
from art_lfr.core.randomness import RandomState
from art_lfr.errors import UsageError
from art_lfr.storage.description import array
from art_lfr.storage.files import write_atomically
from art_lfr.storage.identity import Identity
from art_lfr.storage.records import digest, pack, unpack

KIND = "art-lfr AutoAttack state"
FORMAT = 2
SETTINGS = ("n_restarts", "n_target_classes", "n_queries", "eot_iter", "use_largereps")
ALLOWED = "the state of the same run, or a path where no file is"


@dataclass
class AttackState:
    """What a run has found so far, and the batch at which it stands.

    `adversarial` (N, ...) holds x itself where no attack has succeeded, `labels` (N,) what the
    model says there. `clean`, `robust` and `started` are boolean, (N,): correct without an attack,
    correct still, and correct when the current attack began, which is what its batches are made of.
    `done` attacks and `batch` batches of the current one are finished.
    """

    adversarial: Tensor
    labels: Tensor
    clean: Tensor
    robust: Tensor
    started: Tensor
    accuracies: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    done: int = 0
    batch: int = 0


class StateFile:
    """The files of one run: only a run with the same `identity` may go on from them.

    Raises ValueError naming `state_path` where it is damaged, or belongs to another run.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self._order: list[int] = []
        self._hash = hashlib.sha256()
        self._length = 0
        self.examples = self.path.with_name(self.path.name + ".examples")

    def load(self, x: Tensor, device: torch.device) -> AttackState | None:
        """The state of the run on x, or None where there is none yet.

        Puts the global generators where the run left them: a randomised model draws from them.
        """
        if not self.path.exists():
            # A run that was stopped before its first state leaves an empty one.
            if self.examples.exists() and self.examples.stat().st_size:
                raise UsageError(
                    f"state_path is {str(self.path)!r}, beside which {str(self.examples)!r} would "
                    "be overwritten, a file of no run that is known; allowed: another path, or "
                    "that file out of the way"
                )
            return None
        run = read_run(self.path)
        self.identity.check(run["identity"], f"the run in state_path {str(self.path)!r}", ALLOWED)
        try:
            adversarial = self._read_examples(run["examples"], x)
            plain = json.loads(json.dumps(run["random"]), object_hook=_decoded)
            if device.type != "cuda":  # a run that began on a GPU
                plain["torch_device"] = None
            random = RandomState.from_plain(plain, device)
        except (OSError, ValueError) as error:
            raise _damaged(self.path, f"{self.examples.name}: {error}") from error
        random.restore()
        count = len(x)
        return AttackState(
            adversarial=adversarial,
            labels=torch.tensor(run["labels"]),
            clean=unpack(run["clean"], count),
            robust=unpack(run["robust"], count),
            started=unpack(run["started"], count),
            **{key: run[key] for key in ("accuracies", "seconds", "flags", "done", "batch")},
        )

    def save(self, state: AttackState, fresh: Tensor, device: torch.device) -> None:
        """Write the state; `fresh` are the indices of the samples that fell since the last time."""
        random = RandomState.capture(device)
        examples = state.adversarial[fresh].detach().cpu().contiguous().flatten()
        raw = bytes(examples.view(torch.uint8).numpy().tobytes())
        # Opened for update where its first bytes count, else anew.
        with self.examples.open("r+b" if self._length else "wb") as file:
            file.seek(self._length)
            file.truncate()
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        self._length += len(raw)
        self._hash.update(raw)
        self._order += fresh.tolist()
        run = {
            "identity": self.identity.parts,
            "clean": pack(state.clean),
            "robust": pack(state.robust),
            "started": pack(state.started),
            "labels": state.labels.tolist(),
            **{k: getattr(state, k) for k in ("accuracies", "seconds", "flags", "done", "batch")},
            "random": json.loads(json.dumps(random.to_plain(), default=_encoded)),
            "examples": {
                "order": self._order,
                "bytes": self._length,
                "sha256": self._hash.hexdigest(),
            },
        }
        content = {"kind": KIND, "format": FORMAT, "sha256": digest(run), "run": run}
        write_atomically(self.path, json.dumps(content))

    def _read_examples(self, listed: dict[str, Any], x: Tensor) -> Tensor:
        with self.examples.open("rb") as file:
            raw = file.read(listed["bytes"])
        self._order, self._length = listed["order"], len(raw)
        self._hash = hashlib.sha256(raw)
        if self._hash.hexdigest() != listed["sha256"]:
            raise UsageError("its content is not what the run has written")
        adversarial = x.detach().clone()
        if raw:
            numbers = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(x.dtype)
            adversarial[self._order] = numbers.reshape(-1, *x.shape[1:]).to(x.device)
        return adversarial


def identity_of(suite: Any, x: Tensor, y: Tensor, batch_size: int) -> Identity:
    """What two runs have in common if one can go on where the other stopped."""
    names = ("apgd", "apgd_targeted", "fab", "square")
    return Identity(
        {
            "model": suite.model,
            "samples": len(x),
            "eps": float(suite.epsilon),
            "norm": suite.norm,
            "attacks": list(suite.attacks_to_run),
            "seed": suite.seed,
            "batch_size": batch_size,
            "settings": {name: _settings(getattr(suite, name)) for name in names},
            "backend": backend(),
        },
        plain={"x": array(x), "y": array(y)},
    )


def _settings(attack: Any) -> dict[str, Any]:
    settings = {name: getattr(attack, name) for name in SETTINGS if hasattr(attack, name)}
    # With larger radii first, each run of APGD leaves its last number of steps in `n_iter`.
    scheduled = settings.get("use_largereps", False)
    return {**settings, "n_iter": getattr(attack, "n_iter_orig" if scheduled else "n_iter", None)}


def read_run(path: Path) -> dict[str, Any]:
    """What a state file says of its run, as JSON types; ValueError where it is none or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError too
        raise _damaged(path, "not JSON") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise _damaged(path, "not written by art-lfr")
    if content.get("format") != FORMAT:
        raise _damaged(path, f"format {content.get('format')!r}, not {FORMAT}")
    run = content.get("run")
    if not isinstance(run, dict) or digest(run) != content.get("sha256"):
        raise _damaged(path, "its checksum differs")
    return run


def _damaged(path: Path, reason: str) -> ValueError:
    return UsageError(
        f"state_path is {str(path)!r}, which is damaged or no state of AutoAttack ({reason}); "
        f"allowed: {ALLOWED}"
    )


def _encoded(value: Tensor) -> dict[str, Any]:
    """A tensor as JSON types."""
    return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}


def _decoded(value: dict[str, Any]) -> Any:
    """The tensor that `_encoded` has written; any other object as it is."""
    if "tensor" not in value:
        return value
    return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
