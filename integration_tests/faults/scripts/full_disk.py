"""full_disk.py DIRECTORY: five epochs with checkpoints, of which the second finds the disk full.

After its first epoch the process may write no file of more than two kB: as on a full disk.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Box
from art_lfr.core.settings import LFRSettings
from art_lfr.training.batches import TensorBatches
from art_lfr.training.loop import TrainingLoop
from art_lfr.training.options import TrainingOptions
from art_lfr.training.step import Objective


def fill_the_disk(record: dict[str, float]) -> None:
    if record["epoch"] == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))


torch.manual_seed(0)
network = torch.nn.Linear(30, 30)
x, y = torch.rand(64, 30), torch.arange(64) % 30
loop = TrainingLoop(
    Objective(network, Criterion(), lambda like: Box.from_bounds((0.0, 1.0), like)),
    network,
    torch.optim.SGD(network.parameters(), 0.1),
    settings=LFRSettings(eps=0.1, steps=1),
    options=TrainingOptions(verbose=False),
)
try:
    loop.fit(
        TensorBatches(x, y, 32, "cpu"),
        5,
        checkpoint_dir=Path(sys.argv[1]),
        callback=fill_the_disk,
    )
except OSError as error:
    print("OSError", error)
