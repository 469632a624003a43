"""Batches of a torch `DataLoader` and of an ART `DataGenerator`, for the training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from art.data_generators import DataGenerator
from torch.utils.data import DataLoader

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.training.batches import Batch, joined_singles


class LoaderBatches:
    """(x, y) batches of a `DataLoader`, checked one by one.

    The loader alone decides the order. Memory holds two batches, and those its workers have ready.
    """

    samples: int | None = None

    def __init__(self, loader: object, adapter: ClassifierAdapter) -> None:
        if not isinstance(loader, DataLoader):
            raise WrongTypeError(
                f"train_loader is a {type(loader).__name__}; allowed: a torch.utils.data.DataLoader"
            )
        try:
            self._count = len(loader)
        except TypeError as error:
            raise WrongTypeError(
                "train_loader has no length, which the warm-up of eps needs; allowed: a DataLoader "
                "over a dataset that has `__len__`"
            ) from error
        if self._count == 0:
            raise UsageError("train_loader has no batch; allowed: at least one")
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
            raise UsageError("train_loader gave no batch in this epoch; allowed: at least one")

    def _batch(self, batch: object) -> Batch:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise WrongTypeError(
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


class GeneratorBatches:
    """The batches of an ART `DataGenerator`, checked one by one.

    The generator alone decides the order; a resumed run is identical only if it is.
    """

    samples: int | None = None

    def __init__(self, generator: object, adapter: ClassifierAdapter) -> None:
        if not isinstance(generator, DataGenerator):
            raise WrongTypeError(
                f"generator is a {type(generator).__name__}; allowed: an "
                "art.data_generators.DataGenerator, such as PyTorchDataGenerator"
            )
        if not generator.size or not generator.batch_size:
            raise UsageError(
                f"generator has size {generator.size!r} and batch_size {generator.batch_size!r}; "
                "allowed: both known and above 0"
            )
        self._generator = generator
        self._adapter = adapter
        self.batch_size = int(generator.batch_size)
        self._count = math.ceil(int(generator.size) / self.batch_size)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._count

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """As many batches as cover the generator's size once."""
        return joined_singles(self._batch() for _ in range(self._count))

    def _batch(self) -> Batch:
        given_x, given_y = self._generator.get_batch()
        x, y = self._adapter.tensors(given_x, given_y, " of a batch")
        return Batch(x.to(self._adapter.device), y.to(self._adapter.device))

    def sample(self, count: int, seed: int) -> None:
        """None: a generator cannot be read without moving it on."""
        return

    def fingerprint(self) -> str:
        """Empty: the data cannot be known beforehand."""
        return ""
