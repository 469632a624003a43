"""Fine-tune a network of RobustBench's zoo with LFR, on images that you hold.

python examples/robustbench_finetune.py Carmon2019Unlabeled cifar10.npz

downloads the network as RobustBench does. Without arguments it takes a small network in the zoo's
form (normalisation inside) and images of scikit-learn's digits, to show the steps in a minute.
"""

import sys

import numpy as np

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate
from art_lfr.data import digits, load_npz
from art_lfr.models import narrow_resnet
from art_lfr.robustbench import check_conditions, to_art  # before robustbench itself

EPS = 8 / 255
if len(sys.argv) > 2:
    data = load_npz(sys.argv[2])
    classifier = to_art(sys.argv[1], model_dir="./models", learning_rate=0.01)
    x, y, x_test, y_test = data.x_train, data.y_train, data.x_test[:1000], data.y_test[:1000]
else:
    small = digits()
    x, x_test = (
        np.repeat(np.repeat(np.repeat(images, 3, 1), 4, 2), 4, 3)
        for images in (small.x_train[:256], small.x_test[:20])
    )
    y, y_test = small.y_train[:256], small.y_test[:20]
    network = narrow_resnet()
    plain = to_art(network, learning_rate=0.1)
    plain.fit(x, y, nb_epochs=8, batch_size=32)  # stands for the training of others
    classifier = to_art(network, learning_rate=0.02)

print(check_conditions(classifier, x[:8]))
trainer = AdversarialTrainerLFRPyTorch(classifier, eps=EPS, lam=EPS)
trainer.fit(x, y, nb_epochs=3, batch_size=64)
print(evaluate(classifier, x_test, y_test, eps=EPS, attacks=["PGD-40", "Square"]))
