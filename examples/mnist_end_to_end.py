"""MNIST from a file to a judged network: check, train, judge, doubt, save.

python examples/mnist_end_to_end.py mnist.npz

Without a file it makes a small one of scikit-learn's digits in MNIST's form, to show the steps in
less than a minute. The file has x_train, y_train, x_test and y_test, images of type uint8.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate, masking_report
from art_lfr.check import check_model
from art_lfr.data import digits, load_npz
from art_lfr.models import load_network, network_info, small_cnn

folder = Path(tempfile.mkdtemp())
if len(sys.argv) > 1:
    path, eps, epochs, judged = Path(sys.argv[1]), 0.3, 8, 1000
else:
    small, path = digits(), folder / "digits.npz"
    eps, epochs, judged = 0.1, 15, 100  # few images: a ball that they can be learnt in
    large = [
        np.repeat(np.repeat((255 * x[:, 0]).astype(np.uint8), 3, 1), 3, 2)
        for x in (small.x_train, small.x_test)
    ]
    x_train, x_test = (np.pad(x, ((0, 0), (2, 2), (2, 2))) for x in large)
    np.savez(path, x_train=x_train, y_train=small.y_train, x_test=x_test, y_test=small.y_test)

data = load_npz(path)
# The last tenth of the training images is for looking; test images are for the end.
last = len(data.x_train) // 10
x, y, seen = (
    data.x_train[:-last],
    data.y_train[:-last],
    (data.x_train[-last:], data.y_train[-last:]),
)

model = small_cnn()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
classifier = PyTorchClassifier(
    model,
    loss=nn.CrossEntropyLoss(),
    optimizer=optimizer,
    input_shape=(1, 28, 28),
    nb_classes=10,
    clip_values=(0.0, 1.0),
)
for finding in check_model(classifier, x, y):
    print(finding)

steps = epochs * -(-len(x) // 128)
trainer = AdversarialTrainerLFRPyTorch(
    classifier, eps=eps, best_metric="validation_robust_accuracy"
)
trainer.fit(
    x,
    y,
    nb_epochs=epochs,
    batch_size=128,
    scheduler=torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps),
    validation_data=tuple(part[:500] for part in seen),
)
trainer.save(folder / "robust.safetensors")

info = network_info(folder / "robust.safetensors")
network = load_network(folder / "robust.safetensors", model="small-cnn")
print(f"eps {info.eps:g}, norm {info.norm}")
x_test, y_test = data.x_test[:judged], data.y_test[:judged]
print(evaluate(network, x_test, y_test, eps=info.eps))
print(masking_report(network, x_test[:100], y_test[:100], eps=info.eps))
