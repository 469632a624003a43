"""Several processes that train or judge one network: who they are, and how they agree.

Started by `accelerate launch`, one for each GPU or share of the cores; Hugging Face `accelerate`
knows the back end. In training each takes its rows of every batch, and gradients are added up; in
evaluation each takes whole batches, so that no figure depends on how many there are.
"""

from __future__ import annotations

import atexit
import importlib
import math
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from art_lfr.core.imports import require
from art_lfr.errors import UsageError

T = TypeVar("T")
# How long the others wait for the main one, in a callback for instance.
PATIENCE = timedelta(hours=6)
_MIXED = "ACCELERATE_MIXED_PRECISION"
_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
_alone = 0  # how many `one_process` this process is in


@contextmanager
def one_process() -> Iterator[None]:
    """Within it this process works by itself, whatever a launcher has started beside it.

    For what only one of them calls, such as a callback: it would wait for the others.
    """
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


class Processes:
    """The processes of this run: one, unless a launcher has set WORLD_SIZE above 1.

    Attributes:
        rank: Which one this is, from 0; 0 is the main one, which reports and writes.
        size: How many there are.
        device: Where the classifier of this one belongs, if there are several.

    Raises ImportError without `accelerate` where there are several, and ValueError for sharded
    weights, which are not tested.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        self.device = torch.device("cpu")
        self._accelerate: Any = None
        world = "1" if _alone else os.environ.get("WORLD_SIZE") or "1"
        if not world.isdigit() or world == "0":
            raise UsageError(f"WORLD_SIZE is {world!r}; allowed: a number of processes, or unset")
        if world == "1":
            return
        for variable, name in _SHARDED.items():
            if os.environ.get(variable, "false").lower() in ("1", "true"):
                raise UsageError(
                    f"accelerate is set to {name}, which shards the weights; allowed: plain data "
                    "parallelism (`accelerate launch` without it)"
                )
        self._accelerate = require("accelerate", "distributed")
        # Before there is a process group: default arguments of this module would keep the group,
        # and with it gloo's threads, to the end. Every optimizer imports it.
        importlib.import_module("torch.distributed.nn")
        # Without being told so, it takes several processes without a GPU for unrelated ones.
        state = self._accelerate.PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        self.rank, self.size = int(state.process_index), int(state.num_processes)
        if self.size != int(world):
            raise UsageError(
                f"accelerate's PartialState has {self.size} of {world} processes; allowed: all "
                "(make it with cpu=True where there is no GPU)"
            )
        if state.device.type != "cpu":  # which it numbers, as if there were several
            self.device = state.device
        atexit.unregister(_end_threads)  # once, however many trainers there are
        atexit.register(_end_threads)

    @classmethod
    def single(cls) -> Processes:
        """This process alone, whatever a launcher has set."""
        with one_process():
            return cls()

    @property
    def precision(self) -> str | None:
        """What accelerate's `mixed_precision` asks for, "bf16" or "fp16", or None."""
        said = os.environ.get(_MIXED) or "no"
        if said not in ("no", "bf16", "fp16"):
            raise UsageError(
                f"accelerate's mixed_precision is {said!r}; allowed: 'no', 'bf16', 'fp16'"
            )
        return None if said == "no" else said

    @property
    def main(self) -> bool:
        """Whether this is the one that reports and writes."""
        return self.rank == 0

    def share_of(self, count: int) -> range:
        """Which of `count` parts of a batch this process takes; none where they do not suffice."""
        first, end = (math.ceil(rank * count / self.size) for rank in (self.rank, self.rank + 1))
        return range(first, end)

    def check_device(self, device: torch.device, name: str = "classifier") -> None:
        """Raise ValueError where a model, called `name`, is not on this process's own device."""
        index = torch.cuda.current_device() if device.type == "cuda" else None
        actual = torch.device(device.type, index if device.index is None else device.index)
        if self.size > 1 and actual != self.device:
            raise UsageError(
                f"{name} is on {actual} in process {self.rank} of {self.size}; allowed: "
                f"{self.device} (call accelerate.PartialState() before you make it)"
            )

    def check_alone(self, what: str) -> None:
        """Raise ValueError for what is not made for several processes."""
        if self.size > 1:
            raise UsageError(f"{what} runs in {self.size} processes of a launcher; allowed: one")

    def check_same(self, what: str, value: object) -> None:
        """Raise ValueError in all processes where one has another value than the main one."""
        if self.size == 1:
            return
        differs = torch.tensor([float(self.from_main(value) != value)], device=self.device)
        if self.add_up([differs])[0].item():
            raise UsageError(f"{what} differs between the processes; allowed: the same in all")

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            self._accelerate.PartialState().wait_for_everyone()

    def add_up(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum over the processes of each tensor, in one exchange for each dtype."""
        sums = list(tensors)
        if self.size == 1:
            return sums
        for dtype in dict.fromkeys(tensor.dtype for tensor in sums):
            where = [i for i, tensor in enumerate(sums) if tensor.dtype == dtype]
            flat = torch.cat([sums[i].flatten() for i in where])
            total = self._accelerate.utils.reduce(flat, reduction="sum")
            for i, part in zip(where, total.split([sums[i].numel() for i in where]), strict=True):
                sums[i] = part.view_as(sums[i])
        return sums

    def from_main(self, value: T) -> T:
        """The main process's value, in all of them; of types that pickle."""
        if self.size == 1:
            return value
        message = [value]
        self._accelerate.utils.broadcast_object_list(message)
        return message[0]

    def by_main(self, work: Callable[[], T]) -> T:
        """What the main process makes, in all of them; an error of its own is raised in all."""
        if self.size == 1:
            return work()
        result: Any = None
        error: Exception | None = None
        if self.main:
            try:
                result = work()
            except Exception as raised:  # the others wait for a result: let them end too
                error = raised
        result, told = self.from_main((result, _sendable(error)))
        if (error := error or told) is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def main_enters(self, stack: ExitStack, context: AbstractContextManager[object]) -> None:
        """Enter a context in the main process alone; its error is raised in all."""

        def enter() -> None:
            stack.enter_context(context)

        self.by_main(enter)

    def to_send(self, *tensors: Tensor) -> list[Tensor]:
        """The tensors as another process can have them: on the CPU, where there are several."""
        return [tensor if self.size == 1 else tensor.detach().cpu() for tensor in tensors]

    def dealt(
        self,
        count: int,
        work: Callable[[int], T],
        skip: Callable[[int], object] = lambda index: None,
    ) -> list[T]:
        """`work(0)` to `work(count - 1)`, each done by one process in turn; all get all results.

        Results pickle; their tensors lie on the CPU. A process calls `skip` for what another one
        does, in order: there it draws the random numbers that `work` would have drawn. An error in
        one process is raised in all.
        """
        if self.size == 1:
            return [work(index) for index in range(count)]
        mine: list[T] = []
        error: Exception | None = None
        try:
            for index in range(count):
                if index % self.size == self.rank:
                    mine.append(work(index))
                else:
                    skip(index)
        except Exception as raised:  # the others wait for results: let them end too
            error = raised
        found = self._accelerate.utils.gather_object([(mine, _sendable(error))])
        errors = (told for _, told in found if told is not None)
        if (error := error or next(errors, None)) is not None:
            raise error
        return [found[index % self.size][0][index // self.size] for index in range(count)]

    def main_reads(self, items: Iterator[T]) -> Iterator[T]:
        """What the main process's iterator gives, in all of them; the others' are not touched."""
        while True:
            item: Any = None
            if self.main:
                try:
                    item = next(items, None)
                except Exception as error:  # the others wait for a batch: let them end too
                    self.from_main(_sendable(error))
                    raise
            item = self.from_main(item)
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item


def _sendable(error: Exception | None) -> Exception | None:
    """The error, or where it does not come through a pickle one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the class of a user's raises
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_threads() -> None:
    """End gloo's threads while the interpreter still runs.

    One that lets go of a tensor later needs an interpreter that has gone, and aborts the process:
    status 134 after all has been done. Not with NCCL, which would wait for processes that failed.
    """
    group = torch.distributed
    if group.is_initialized() and group.get_backend() == "gloo":
        group.destroy_process_group()
