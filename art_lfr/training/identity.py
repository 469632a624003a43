"""What makes a training run the same: only a run of the same identity goes on from a checkpoint.

Not a part of it, so that it may differ: `nb_epochs`, `verbose`, `max_physical_batch_size`,
`callback`, `summary_writer`, where the files lie, the device, the weights that training changes,
and how a `DataLoader` reads (workers, pinned memory).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.core.modes import kept_in_eval_mode, parameters_of
from art_lfr.core.settings import LFRSettings
from art_lfr.storage.description import Description, Network, Plain, array
from art_lfr.storage.identity import Identity, differences, refuse_differences
from art_lfr.training.averaging import tensors_of
from art_lfr.training.batches import Batches
from art_lfr.training.options import TrainingOptions

# Smaller parts may be what a run needs to go on.
FREE = ("verbose", "max_physical_batch_size")
# What the trainer calls some of the settings.
NAMES = {"steps": "max_iter", "step_size": "eps_step"}
# What may differ between two runs whose best weights can still be compared.
NOT_COMPARED = (
    *("optimizer", "scheduler", "scheduler_interval", "scheduler_metric"),
    *("modules in eval mode", "constants", "version"),
)
WHERE = "the run in checkpoint_dir"
ALLOWED = "the same, or another directory"


class RunIdentity(Identity):
    """That of one call of `fit`; see the module.

    Args:
        parts: What only this call knows, by the names of `fit`.
        description: The trainer's: it knows things as they were when it first saw them, before
            training changed them.
        settings, options: Those of the trainer.
        network, optimizer: Whose weights are trained, and by what.
        batches: The training data.
        validation: (x, y), or None.
        main: Whether this process is the main one, which writes the checkpoint.
    """

    def __init__(
        self,
        parts: Mapping[str, Any],
        description: Description,
        *,
        settings: LFRSettings,
        options: TrainingOptions,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Batches,
        validation: tuple[Tensor, Tensor] | None,
        main: bool = True,
    ) -> None:
        self.main = main
        chosen = {NAMES.get(name, name): value for name, value in asdict(settings).items()}
        names = [field.name for field in fields(options) if field.name not in FREE]
        chosen |= {name: getattr(options, name) for name in names}
        kept = set(kept_in_eval_mode(network, parameters_of(optimizer)))
        validation_data = None if validation is None else [array(data) for data in validation]
        super().__init__(
            {
                **chosen,
                "network": Network(network, with_weights=False),
                "optimizer": optimizer,
                **parts,
                **batches.parts(),
            },
            description,
            {
                "modules in eval mode": [n for n, m in network.named_modules() if m in kept],
                "trained parameters": sorted(
                    n for n, p in network.named_parameters() if p.requires_grad
                ),
                "validation_data": validation_data,
                "constants": constants_of(network),
            },
        )

    def same_everywhere(self) -> str:
        """A hash of what has to be the same in all processes; weights are those of the main one."""
        shared = {**_without_surroundings(self.parts), "constants": None}
        return Identity({}, Description(), shared).digest

    def check_resumes(
        self, saved: Mapping[str, Plain], state: Mapping[str, Tensor], epoch: int
    ) -> None:
        """Raise UsageError, naming the differences, unless the saved run is the same.

        `state` are the weights to go on from, after so many epochs: what training has not changed
        in them, such as a mean of the data or frozen weights, must be in the network already.
        """
        # Before the first epoch has ended nobody knows what training changes.
        first, present = saved["constants"] if epoch else {}, self.parts["constants"]
        kept = {name for name in first if name in state and array(state[name]) == first[name]}
        rest, was = (
            {name: part for name, part in parts.items() if name != "constants"}
            for parts in (self.parts, saved)
        )
        if not self.main:  # what the main process wrote
            rest, was = _without_surroundings(rest), _without_surroundings(was)
        found = differences(rest, was, WHERE)
        fixed, began = (
            {f"network.{n}": part[n] for n in sorted(kept) if n in part}
            for part in (present, first)
        )
        found += differences(fixed, began, WHERE)
        # A scheduler for more epochs is another one.
        hint = " (a scheduler: one for as many epochs)" if "scheduler" in "".join(found) else ""
        refuse_differences(found, ALLOWED + hint)

    def compares_with(self, other: Identity) -> bool:
        """Whether metrics of both are of the same task, so that there is a best one of both."""
        names = self.parts.keys() - NOT_COMPARED
        return all(self.parts[name] == other.parts.get(name) for name in names)


def _without_surroundings(plain: Plain) -> Plain:
    """A description without what code takes from around it, such as the rank of its process."""
    if isinstance(plain, dict):
        return {k: _without_surroundings(v) for k, v in plain.items() if k != "takes"}
    return [_without_surroundings(v) for v in plain] if isinstance(plain, list) else plain


def constants_of(network: nn.Module) -> dict[str, Plain]:
    """A hash of each buffer and frozen parameter: what training may leave as it is."""
    trained = {name for name, item in network.named_parameters() if item.requires_grad}
    return {n: array(value) for n, value in tensors_of(network).items() if n not in trained}
