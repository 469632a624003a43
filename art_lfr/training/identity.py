"""What makes a training run the same: only a run of the same identity goes on from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError
from art_lfr.storage.fingerprint import described, fingerprint
from art_lfr.storage.tensor_files import to_plain
from art_lfr.training.averaging import tensors_of
from art_lfr.training.batches import Batches
from art_lfr.training.options import TrainingOptions

# Of what an optimizer is made with, that which a checkpoint would put back without a word.
OPTIMIZER_SETTINGS = ("lr", "momentum", "dampening", "nesterov", "weight_decay", "betas")
# What may differ between two runs whose best weights can still be compared.
NOT_COMPARED = ("optimizer_settings",)


@dataclass(frozen=True)
class Identity:
    """A run as a checkpoint knows it again, in plain values.

    Attributes:
        settings: Those of the objective.
        options: Those of training that count.
        network: The shape of each parameter and buffer.
        optimizer: Its class.
        optimizer_settings: As it was made: a scheduler changes them later.
        attack, penalty: In words.
        batch_size: Samples in a batch.
        data, validation_data: Hashes; empty where they are not known beforehand.
    """

    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    network: Mapping[str, list[int]]
    optimizer: str
    optimizer_settings: Mapping[str, Any]
    attack: str
    penalty: str
    batch_size: int
    data: str
    validation_data: str

    @classmethod
    def of(
        cls,
        *,
        settings: LFRSettings,
        options: TrainingOptions,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        attack: object,
        penalty: str,
        batches: Batches,
        validation: tuple[Tensor, Tensor] | None,
    ) -> Identity:
        """That of the run which is about to begin."""
        return cls(
            settings=asdict(settings),
            options=options.plain(),
            network={name: list(value.shape) for name, value in tensors_of(network).items()},
            optimizer=type(optimizer).__name__,
            optimizer_settings={
                name: described(optimizer.defaults.get(name)) for name in OPTIMIZER_SETTINGS
            },
            attack=repr(attack),
            penalty=penalty,
            batch_size=batches.batch_size,
            data=batches.fingerprint(),
            validation_data="" if validation is None else _hash(*validation),
        )

    def plain(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        content: dict[str, Any] = to_plain(asdict(self), "settings")
        return content

    def check_resumes(self, saved: Mapping[str, Any]) -> None:
        """Raise UsageError, naming the difference, unless `saved` is `plain` of the same run."""
        for part, value in self.plain().items():
            kept = saved.get(part, value)  # an older version may not have kept it
            present, saved_part = (v if isinstance(v, dict) else {part: v} for v in (value, kept))
            for name in dict.fromkeys([*present, *saved_part]):
                if present.get(name) != saved_part.get(name):
                    self._refuse(part, name, present.get(name), saved_part.get(name))

    @staticmethod
    def _refuse(part: str, name: str, present: object, saved_part: object) -> None:
        if part == "network":
            raise UsageError(
                f"classifier has {present} as the shape of {name!r}, but the run in checkpoint_dir "
                f"has {saved_part}; allowed: the same network"
            )
        raise UsageError(
            f"{name} is {present!r}, but the run in checkpoint_dir has {saved_part!r}; "
            "allowed: the same, or another directory"
        )

    def compares_with(self, other: Identity) -> bool:
        """Whether metrics of both are of the same task, so that there is a best one of both."""
        names = (field.name for field in fields(self) if field.name not in NOT_COMPARED)
        return all(getattr(self, name) == getattr(other, name) for name in names)


def _hash(x: Tensor, y: Tensor) -> str:
    return fingerprint(tensors={"x": x, "y": y})
