"""Where the training loop's batches come from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from art_lfr.storage.description import array


class Batch(NamedTuple):
    """Inputs and targets, and where each stands in the data, (N,) integers, if that is known."""

    x: Tensor
    y: Tensor
    rows: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        rows = None if self.rows is None else self.rows.to(device)
        return Batch(self.x.to(device), self.y.to(device), rows)


class Batches(Protocol):
    """One epoch after another of batches on the training device.

    Attributes:
        batch_size: Samples in a batch.
        in_memory: Whether each process holds all samples and draws the same batches. Otherwise they
            come from elsewhere, one by one, and of several processes only the main one reads them.
        samples: How many there are, so that rows are below it; None where batches have no rows.
    """

    batch_size: int
    in_memory: bool
    samples: int | None

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """The batches of the next epoch; `generator` draws their order."""
        ...

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor] | None:
        """A fixed random subset to monitor training on, or None where there is none."""
        ...

    def parts(self) -> dict[str, Any]:
        """What a resumed run must find again, as parts of its identity."""
        ...


class TensorBatches:
    """Shuffled batches of tensors that stay on the device.

    A last batch of one sample joins the batch before it: BatchNorm has no statistics of one.
    """

    in_memory = True

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, device: torch.device) -> None:
        self.x, self.y = x.to(device), y.to(device)
        self.batch_size = batch_size
        self.samples: int | None = len(x)
        full, rest = divmod(len(x), batch_size)
        self._sizes = [batch_size] * full + ([rest] if rest else [])
        if rest == 1 and full:
            self._sizes[-2:] = [batch_size + 1]

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._sizes)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """All samples once, in an order drawn from `generator`."""
        order = torch.randperm(len(self.x), generator=generator).to(self.x.device)
        for rows in torch.split(order, self._sizes):
            yield Batch(self.x[rows], self.y[rows], rows)

    def sample(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """The same `count` samples (or all) for the same seed."""
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        indices = order[:count].to(self.x.device)
        return self.x[indices], self.y[indices]

    def parts(self) -> dict[str, Any]:
        """The batch size, and shapes and values of the data."""
        return {"batch_size": self.batch_size, **self._data}

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Hashed once: the run's identity and a saved network both have it."""
        return {"x": array(self.x), "y": array(self.y)}


def parts_of(samples: int, largest: int, processes: int) -> list[slice]:
    """The rows of a batch in parts of nearly equal size, of at most `largest` samples.

    As many parts for each process, where the samples suffice. A part has two samples at least,
    because BatchNorm has no statistics of one; unless `largest` is 1.
    """
    fewest = 1 if largest == 1 else 2
    rounds = math.ceil(samples / (largest * processes))
    count = max(1, min(samples // fewest, processes * rounds))
    size, longer = divmod(samples, count)
    ends = [size * i + min(i, longer) for i in range(count + 1)]
    return [slice(first, end) for first, end in pairwise(ends)]


def joined_singles(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches as they come; one of a single sample joins the one before it, as above."""
    waiting: Batch | None = None
    for new in batches:
        if waiting is None:
            waiting = new
        elif len(new.x) == 1 and len(waiting.x) > 1:
            rows = None
            if waiting.rows is not None and new.rows is not None:
                rows = torch.cat([waiting.rows, new.rows])
            waiting = Batch(torch.cat([waiting.x, new.x]), torch.cat([waiting.y, new.y]), rows)
        else:
            yield waiting
            waiting = new
    if waiting is not None:
        yield waiting
