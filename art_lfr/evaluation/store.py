"""The finished attacks of an evaluation, in a directory that belongs to it."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from art_lfr.attacks.named import AttackResult, NamedAttack
from art_lfr.attacks.target import Target
from art_lfr.errors import UsageError
from art_lfr.storage.description import Description, Network, array
from art_lfr.storage.files import write_atomically
from art_lfr.storage.identity import Identity, seal
from art_lfr.storage.records import digest, read_record, write_record
from art_lfr.storage.tensor_files import load_safely, to_plain

FORMAT = 2
EVALUATION = "evaluation.json"
ALLOWED = "the same, or an empty directory"


class EvaluationStore:
    """`evaluation.json`, which says whose directory it is, and one file for each finished attack.

    The directory is there, and locked. Raises ValueError where it is that of an evaluation of
    another model, other data or settings, naming the differences, or where a file is damaged.
    """

    def __init__(self, directory: Path, target: Target) -> None:
        self.directory = directory
        adapter, ball = target.adapter, target.ball
        # Attacks are made for a classifier around these.
        self._names = {"judged model": adapter.network, "judged module": target.module}
        identity = Identity(
            {
                "model": adapter.network,
                **adapter.parts(),
                "eps": ball.eps,
                "norm": ball.p,
                "seed": target.seed,
                "batch_size": target.batch_size,
            },
            plain={"x": array(target.x), "y": array(target.y)},
        )
        path = directory / EVALUATION
        if path.exists():
            saved = read_record(path)
            if not isinstance(saved.get("identity"), dict) or not isinstance(
                saved.get("moved"), list
            ):
                raise UsageError(f"{path} is of another version; allowed: an empty directory")
            where = "the evaluation in state_dir"
            identity.check(saved["identity"], where, ALLOWED, saved["moved"])
            self._fresh: Identity | None = None
        elif any(directory.glob("*.attack.pt")):
            raise UsageError(
                f"state_dir is {str(directory)!r}, which has attacks and no {EVALUATION} that says "
                "of which evaluation; allowed: an empty directory"
            )
        else:
            self._fresh = identity
            self._layers = self._layers_of(adapter.network)
            self.settle(adapter.network)

    @staticmethod
    def _layers_of(network: nn.Module) -> Identity:
        return Identity({"model": Network(network, with_weights=False)})

    def settle(self, network: nn.Module) -> None:
        """Write whose directory it is; after a pass, which may leave something in the network.

        What a pass changes, such as features that are kept to be looked at, is no setting.
        """
        if self._fresh is not None:
            moved = self._layers.moved_to(self._layers_of(network))
            content = {"identity": self._fresh.parts, "moved": moved}
            write_record(self.directory / EVALUATION, content)

    def _path(self, attack: NamedAttack) -> Path:
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", attack.name)
        if name != attack.name:  # others could become the same
            name += f"-{digest(attack.name)[:8]}"
        return self.directory / f"{name}.attack.pt"

    def identity_of(self, attack: NamedAttack) -> Identity:
        """What makes an attack the same one, with all that its object holds."""
        return Identity(
            {
                "name": attack.name,
                "threat": attack.threat.label,
                "images": attack.images,
                "attack": attack.parameters,
            },
            Description(self._names),
        )

    def load(self, attack: NamedAttack, identity: Identity) -> AttackResult | None:
        """The result of an attack that has finished before, or None."""
        path = self._path(attack)
        if not path.exists():
            return None
        saved = load_safely(path)
        if saved.get("format") != FORMAT or saved.get("sha256") != seal(saved):
            raise UsageError(
                f"{path} is damaged, or of another version or kind; allowed: a file as evaluate "
                "wrote it"
            )
        identity.check(saved["identity"], f"{path.name} in state_dir", ALLOWED, saved["moved"])
        return AttackResult(**saved["result"])

    def save(self, attack: NamedAttack, identity: Identity, result: AttackResult) -> None:
        """Write the result atomically, and what the attack has changed of itself since."""
        content = {
            "format": FORMAT,
            "identity": identity.parts,
            "moved": identity.moved_to(self.identity_of(attack)),
            "result": to_plain(vars(result), "result"),
        }
        content["sha256"] = seal(content)
        write_atomically(self._path(attack), lambda file: torch.save(content, file))
