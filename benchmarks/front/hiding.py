"""The paper's SmallCNN on MNIST, eps 0.3, with the trainer's defaults: where few steps are too few.

    python benchmarks/front/hiding.py DATA/mnist.npz
    python benchmarks/front/hiding.py DATA/mnist.npz --renew-every 2
    python benchmarks/front/hiding.py DATA/mnist.npz --steps 10 --renew-every 2 --anew

4,000 images, SGD 0.05, 12 epochs; a line an epoch, judged on 500 reserved training images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.data import load
from art_lfr.models import paper_cnn


def main(
    data: Path,
    steps: Annotated[int, typer.Option(help="max_iter.")] = 2,
    renew_every: Annotated[int, typer.Option(help="renew_every.")] = 1,
    anew: Annotated[bool, typer.Option("--anew", help="No ascent goes on.")] = False,
) -> None:
    """Train, and print what each epoch had."""
    torch.set_num_threads(1)
    images = load(data, train=4000, validation=500, test=0)
    network = paper_cnn(0)
    classifier = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        (1, 28, 28),
        10,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9),
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    trainer = AdversarialTrainerLFRPyTorch(
        classifier,
        eps=0.3,
        max_iter=steps,
        renew_every=renew_every,
        warm_start=False if anew else None,
    )
    trainer.fit(
        images.x_train,
        images.y_train,
        nb_epochs=12,
        validation_data=(images.x_validation, images.y_validation),
    )
    typer.echo(str(trainer.history))


if __name__ == "__main__":
    typer.run(main)
