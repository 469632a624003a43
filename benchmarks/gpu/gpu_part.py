"""A part of the job: its device, its time, and its result, which grows."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from art_lfr import __version__
from art_lfr.core.machine import describe_machine
from art_lfr.core.modes import default_device
from art_lfr.storage.files import write_atomically

ROOT = Path(__file__).parents[2]
# Of its minutes, what a part leaves for its end.
SPARE = 0.08


@dataclass
class Job:
    """A part: its arguments, its time, and its result, which is written whenever it grows."""

    part: str
    output: Path
    minutes: float
    data: Path | None
    bfloat16: bool
    rehearsal: bool
    began: float = field(default_factory=time.monotonic)
    result: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = torch.device("cpu") if self.rehearsal else default_device()
        self.result = {
            "part": self.part,
            "rehearsal": self.rehearsal,
            "ended": False,
            "machine": describe_machine(),
            "device": self.device.type,
            "versions": {
                "art_lfr": __version__,
                "python": sys.version.split()[0],
                "torch": torch.__version__,
                "cuda": torch.version.cuda,
            },
        }

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return (1 - SPARE) * 60 * self.minutes - (time.monotonic() - self.began)

    def wait(self) -> None:
        """Return when the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def write(self, **news: Any) -> None:
        """Put something into the result, on the disk too."""
        self.result |= {**news, "seconds": round(time.monotonic() - self.began, 1)}
        text = json.dumps(self.result, indent=1) + "\n"
        write_atomically(self.output / f"{self.part}.json", text)
