"""What channels-last order of the weights saves in training by the defaults, for each network.

    python benchmarks/speed/channels_last.py [ROUNDS]

Both orders one after another in each round; the median of the ratios, and the work of the
convolutions for one image, by which the trainer chooses.
"""

from __future__ import annotations

import sys
import time
import warnings
from statistics import median

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.models import BUILT_IN

NETWORKS = {
    "digits-cnn": ((1, 8, 8), 1024),
    "small-cnn": ((1, 28, 28), 512),
    "paper-cnn": ((1, 28, 28), 128),
    "narrow-resnet": ((3, 32, 32), 128),
    "resnet-20": ((3, 32, 32), 64),
}


def seconds(name: str, channels_last: bool) -> float:
    """Core seconds of an epoch."""
    shape, count = NETWORKS[name]
    x = np.random.default_rng(0).random((count, *shape), dtype=np.float32)
    y = np.arange(count) % 10
    network = BUILT_IN[name](0)
    classifier = PyTorchClassifier(
        network,
        torch.nn.CrossEntropyLoss(),
        shape,
        10,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.01),
        clip_values=(0, 1),
    )
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, eps=0.03, channels_last=channels_last, verbose=False, warmup_epochs=0
    )
    trainer.fit(x[:64], y[:64], batch_size=64, nb_epochs=1)
    began = time.process_time()
    trainer.fit(x, y, batch_size=64, nb_epochs=1)
    return time.process_time() - began


def main() -> None:
    """Print a line for each network."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    for name in NETWORKS:
        pairs = [(seconds(name, True), seconds(name, False)) for _ in range(rounds)]
        ratio = median(last / first for last, first in pairs)
        print(f"{name}: {ratio:.2f} of the time, {rounds} rounds", flush=True)


if __name__ == "__main__":
    main()
