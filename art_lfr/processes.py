"""Several processes that train one network: who they are, and how they agree.

Started by `accelerate launch`, one for each GPU or share of the cores; Hugging Face `accelerate`
knows the back end. Each takes its rows of every batch; gradients are added up.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from art_lfr.optional import require

T = TypeVar("T")
_MIXED = "ACCELERATE_MIXED_PRECISION"
_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


class Processes:
    """The processes of this training: one, unless a launcher has set WORLD_SIZE above 1.

    Attributes:
        rank: Which one this is, from 0; 0 is the main one, which reports and writes.
        size: How many there are.

    Raises ImportError without `accelerate` where there are several, and ValueError for sharded
    weights or mixed precision, which are not tested.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        self._accelerate: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return
        for variable, name in _SHARDED.items():
            if os.environ.get(variable, "false").lower() in ("1", "true"):
                raise ValueError(
                    f"accelerate is set to {name}, which shards the weights; allowed: plain data "
                    "parallelism (`accelerate launch` without it)"
                )
        if (precision := os.environ.get(_MIXED, "no")) not in ("", "no"):
            raise ValueError(f"accelerate's mixed_precision is {precision!r}; allowed: 'no'")
        self._accelerate = require("accelerate", "distributed")
        # Without being told so, it takes several processes without a GPU for unrelated ones.
        state = self._accelerate.PartialState(cpu=not torch.cuda.is_available())
        self.rank, self.size = int(state.process_index), int(state.num_processes)

    @property
    def main(self) -> bool:
        """Whether this is the one that reports and writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            self._accelerate.PartialState().wait_for_everyone()

    def add_up(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum over the processes of each tensor, in one exchange for each dtype."""
        found = list(tensors)
        if self.size == 1:
            return found
        for dtype in dict.fromkeys(tensor.dtype for tensor in found):
            where = [i for i, tensor in enumerate(found) if tensor.dtype == dtype]
            flat = torch.cat([found[i].flatten() for i in where])
            total = self._accelerate.utils.reduce(flat, reduction="sum")
            for i, part in zip(where, total.split([found[i].numel() for i in where]), strict=True):
                found[i] = part.view_as(found[i])
        return found

    def from_main(self, value: T) -> T:
        """The main process's value, in all of them; of types that pickle."""
        if self.size == 1:
            return value
        held = [value]
        self._accelerate.utils.broadcast_object_list(held)
        return held[0]

    def main_reads(self, items: Iterator[T]) -> Iterator[T]:
        """What the main process's iterator gives, in all of them; the others' are not touched."""
        while True:
            item = self.from_main(next(items, None) if self.main else None)
            if item is None:
                return
            yield item


def launch(size: int, arguments: Sequence[str]) -> int:
    """Run `art-lfr` with these arguments in so many processes; the exit status.

    Raises ValueError where there are GPUs, but fewer, and ImportError without `accelerate`.
    """
    require("accelerate", "distributed")
    gpus = torch.cuda.device_count()
    if 0 < gpus < size:
        raise ValueError(f"--num-processes is {size}; allowed: at most {gpus}, one for each GPU")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    # Without GPUs too: it is what makes `accelerate launch` start several processes at all.
    options = ["--multi_gpu", "--num_processes", str(size), "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    options += ["--main_process_port", str(port)]
    command = ["-m", "accelerate.commands.launch", *options, "-m", "art_lfr", *arguments]
    return subprocess.run([sys.executable, *command]).returncode
