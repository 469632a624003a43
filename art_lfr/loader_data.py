"""The batches of a torch `DataLoader`, as the training loop takes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from art_lfr.batches import Batch, joined_singles
from art_lfr.classifier import ClassifierAdapter


class LoaderBatches:
    """(x, y) batches of a `DataLoader`, checked one by one.

    The loader alone decides the order. Memory holds two batches, and those its workers have ready.
    """

    samples: int | None = None

    def __init__(self, loader: object, adapter: ClassifierAdapter) -> None:
        if not isinstance(loader, DataLoader):
            raise TypeError(
                f"train_loader is a {type(loader).__name__}; allowed: a torch.utils.data.DataLoader"
            )
        try:
            self._count = len(loader)
        except TypeError as error:
            raise TypeError(
                "train_loader has no length, which the warm-up of eps needs; allowed: a DataLoader "
                "over a dataset that has `__len__`"
            ) from error
        if self._count == 0:
            raise ValueError("train_loader has no batch; allowed: at least one")
        self._loader: DataLoader[Any] = loader
        self._adapter = adapter
        # A batch sampler of the user's own may not say; then only its number of batches is known.
        size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
        self.batch_size = int(size or 1)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._count

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """The loader's batches once; ValueError where it has none left."""
        empty = True
        for batch in joined_singles(map(self._batch, self._loader)):
            empty = False
            yield batch
        if empty:
            raise ValueError("train_loader gave no batch in this epoch; allowed: at least one")

    def _batch(self, batch: object) -> Batch:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(
                f"train_loader gives a {type(batch).__name__}; allowed: pairs (x, y), which the "
                "loader's collate_fn can make of anything else"
            )
        x, y = self._adapter.tensors(batch[0], batch[1], " of a batch")
        return Batch(x.to(self._adapter.device), y.to(self._adapter.device))

    def sample(self, count: int, seed: int) -> None:
        """None: reading from the loader would start another epoch of it."""
        return

    def fingerprint(self) -> str:
        """Empty: the data cannot be known beforehand."""
        return ""
