"""Trained networks as files: weights, and beside them what they are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from art_lfr.errors import UsageError
from art_lfr.storage.checkpoint import load_safely
from art_lfr.storage.records import read_record

if TYPE_CHECKING:
    from art_lfr.models.networks import Factory

INDEX = "index.json"


def load_network(path: str | Path) -> nn.Module:
    """A trained network of the results, in eval mode: images in [0, 1] to logits.

    Args:
        path: A file of the repository's `networks/` folder, such as "networks/digits-0.1.pt". The
            folder's `index.json` says which built-in network it is, how it was trained, what its
            accuracies are, and the SHA-256 of the file.

    Raises:
        FileNotFoundError: Where the file or the index is not there.
        ValueError: Where the index does not have the file, or its check sum differs.
    """
    from art_lfr.models import BUILT_IN

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path is {str(path)!r}, which does not exist")
    entry = entries(path.parent).get(path.stem)
    if entry is None or entry["file"] != path.name:
        raise UsageError(
            f"path is {str(path)!r}, which {INDEX} beside it does not have; allowed: one of "
            f"{', '.join(entry['file'] for entry in entries(path.parent).values())}"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        raise UsageError(f"path is {str(path)!r}, which is damaged: its check sum differs")
    factory: Factory = BUILT_IN[entry["model"]]
    network = factory(classes=entry["classes"])
    network.load_state_dict(load_safely(path))
    return network.eval()


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """What the index of a folder says of each network, by name."""
    index = folder / INDEX
    if not index.is_file():
        raise FileNotFoundError(f"there is no {INDEX} in {str(folder)!r}")
    networks: dict[str, dict[str, Any]] = read_record(index)["networks"]
    return networks
