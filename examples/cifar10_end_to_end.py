"""CIFAR-10 from a file: crop and flip, BatchNorm, eps 8/255, a checkpoint after each epoch.

python examples/cifar10_end_to_end.py cifar10.npz

Without a file it makes a small one of scikit-learn's digits in three colours, to show the steps in
less than a minute. Started again with the same folder, it goes on where it was stopped.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate
from art_lfr.data import Compose, RandomCrop, digits, load_npz, random_flip
from art_lfr.models import narrow_resnet

EPS = 8 / 255
folder = Path(tempfile.mkdtemp())
if len(sys.argv) > 1:
    path, epochs, judged, lr, batch_size = Path(sys.argv[1]), 40, 1000, 0.3, 128
else:
    small, path = digits(), folder / "digits.npz"
    epochs, judged, lr, batch_size = 6, 20, 0.1, 32
    x_train, x_test = (
        np.repeat(np.repeat(np.repeat(x, 3, 1), 4, 2), 4, 3)
        for x in (small.x_train[:256], small.x_test[:100])
    )
    y_train, y_test = small.y_train[:256], small.y_test[:100]
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)

data = load_npz(path)
model = narrow_resnet()
optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
classifier = PyTorchClassifier(
    model,
    loss=nn.CrossEntropyLoss(),
    optimizer=optimizer,
    input_shape=(3, 32, 32),
    nb_classes=10,
    clip_values=(0.0, 1.0),
)
trainer = AdversarialTrainerLFRPyTorch(
    classifier,
    eps=EPS,
    lam=EPS,  # eps is small for these images
    augment=Compose(RandomCrop(4), random_flip),  # undone, so that the ascent goes on
)
steps = epochs * -(-len(data.x_train) // batch_size)
trainer.fit(
    data.x_train,
    data.y_train,
    nb_epochs=epochs,
    batch_size=batch_size,
    scheduler=torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps),
    checkpoint_dir=folder / "run",
    resume=True,
)
x, y = data.x_test[:judged], data.y_test[:judged]
print(evaluate(classifier, x, y, eps=EPS, attacks=["PGD-40", "Square"]))
