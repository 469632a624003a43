"""Batches of a torch `DataLoader` and of an ART `DataGenerator`, for the training loop.

Both come one by one, in an order that the loader or the generator alone decides; a resumed run is
identical only if it gives the same batches again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from typing import Any

import torch
from art.data_generators import DataGenerator
from torch.utils.data import DataLoader

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.training.batches import Batch, joined_singles


class _CheckedBatches:
    """What both have in common: each batch is checked, and none is known before."""

    in_memory = False
    samples: int | None = None
    batch_size: int
    _adapter: ClassifierAdapter
    _count: int
    _source: object

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._count

    def _checked(self, x: object, y: object) -> Batch:
        inputs, targets = self._adapter.tensors(x, y, " of a batch")
        return Batch(inputs.to(self._adapter.device), targets.to(self._adapter.device))

    def sample(self, count: int, seed: int) -> None:
        """None: to read a sample would move the source on."""
        return

    def parts(self) -> dict[str, Any]:
        """The number of batches, their size, and where they come from as far as it can be known."""
        loader = self._source
        parts = {"batch_size": self.batch_size, "batches": self._count}
        if isinstance(loader, DataLoader):
            names = ("dataset", "sampler", "batch_sampler", "drop_last", "collate_fn")
            return {**parts, "loader": {name: getattr(loader, name) for name in names}}
        return {**parts, "generator": type(loader)}


INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class LoaderBatches(_CheckedBatches):
    """(x, y) or (x, y, index) batches of a `DataLoader`.

    Memory holds two batches, and those that its workers have ready.
    """

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
        self._source = self._loader = loader
        self._adapter = adapter
        # A batch sampler of the user's own may not say; then only its number of batches is known.
        size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
        self.batch_size = int(size or 1)
        self.samples = len(loader.dataset) if isinstance(loader.dataset, Sized) else None

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """The loader's batches once; ValueError where it has none left."""
        empty = True
        for batch in joined_singles(map(self._batch, self._loader)):
            empty = False
            if batch.rows is not None:
                _check_names_one(batch.rows, batch)
            yield batch
        if empty:
            raise UsageError("train_loader gave no batch in this epoch; allowed: at least one")

    def _batch(self, batch: object) -> Batch:
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise WrongTypeError(
                f"train_loader gives a {type(batch).__name__}; allowed: pairs (x, y), or (x, y, "
                "index), which the loader's collate_fn can make of anything else"
            )
        checked = self._checked(*batch[:2])
        if len(batch) == 2:
            return checked
        rows = self._rows(batch[2], len(checked.x)).to(checked.x.device)
        return checked._replace(rows=rows)

    def _rows(self, index: object, count: int) -> torch.Tensor:
        """The places of a batch's samples in the data set, (N,)."""
        try:
            rows = torch.as_tensor(index)  # numbers of any kind, in a tensor, an array or a list
        except (OverflowError, RuntimeError, TypeError, ValueError):
            rows = None
        integers = rows is not None and rows.dtype in INTEGERS
        if rows is None or not integers or rows.shape != (count,):
            raise WrongTypeError(
                f"train_loader gives (x, y, {type(index).__name__}) for {count} samples; allowed: "
                "as the third the place of each sample in the data set, integers of shape (N,)"
            )
        if self.samples is None or not (0 <= int(rows.min()) <= int(rows.max()) < self.samples):
            raise UsageError(
                f"train_loader gives indices from {int(rows.min())} to {int(rows.max())} with a "
                f"data set of {self.samples} samples; allowed: for each sample its place there, "
                "from 0"
            )
        return rows.long()


def _check_names_one(rows: torch.Tensor, batch: Batch) -> None:
    """Raise UsageError where one index has two samples: it is a group, say, and no place."""
    order = rows.argsort()
    same = rows[order][1:] == rows[order][:-1]
    if not bool(same.any()):
        return
    for name, values in (("y", batch.y[order]), ("x", batch.x[order])):
        differ = (values[1:] != values[:-1]).unsqueeze(1).flatten(1).any(dim=1)
        if bool((same & differ).any()):
            index = int(rows[order][1:][same & differ][0])
            raise UsageError(
                f"train_loader gives (x, y, index) with index {index} for two samples of different "
                f"{name}; allowed: the place of each sample in the data set, whose images do not "
                "change, or (x, y) alone"
            )


class GeneratorBatches(_CheckedBatches):
    """The batches of an ART `DataGenerator`: as many as cover its size once."""

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
        # A generator around a torch loader is known by it.
        self._source = getattr(generator, "iterator", generator)
        self._adapter = adapter
        self.batch_size = int(generator.batch_size)
        self._count = math.ceil(int(generator.size) / self.batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """The generator's next batches."""
        return joined_singles(self._checked(*self._generator.get_batch()) for _ in range(len(self)))
