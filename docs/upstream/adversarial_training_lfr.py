"""
This is an example of how to use ART for training a model with local flatness regularization (LFR)

It takes scikit-learn's images of digits, so that nothing is downloaded, and compares with standard training.
"""

import numpy as np
from sklearn.datasets import load_digits
import torch
import torch.nn as nn
from torch.optim.lr_scheduler import MultiStepLR

from art.attacks.evasion import ProjectedGradientDescent
from art.defences.trainer import AdversarialTrainerLFRPyTorch
from art.estimators.classification import PyTorchClassifier

EPS = 0.1
BATCH_SIZE = 64
NB_EPOCHS = 12

# Step 1: Load the digits, 8x8 pixels in [0, 1]

digits = load_digits()
x = (digits.images[:, None] / 16).astype(np.float32)
y = np.eye(10, dtype=np.float32)[digits.target]
ind = np.random.default_rng(0).permutation(len(x))
x_train, y_train = x[ind[:1200]], y[ind[:1200]]
x_test, y_test = x[ind[1200:1500]], y[ind[1200:1500]]


# Step 2: Create the ART classifier, twice with the same weights


def create_classifier():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
    )


classifier_standard = create_classifier()
classifier_lfr = create_classifier()

# Step 3: Train one as usual, the other with LFR

np.random.seed(0)
classifier_standard.fit(x_train, y_train, batch_size=BATCH_SIZE, nb_epochs=NB_EPOCHS)

trainer = AdversarialTrainerLFRPyTorch(classifier_lfr, norm=np.inf, eps=EPS, max_iter=3)
scheduler = MultiStepLR(classifier_lfr.optimizer, milestones=[9], gamma=0.1)
trainer.fit(x_train, y_train, batch_size=BATCH_SIZE, nb_epochs=NB_EPOCHS, scheduler=scheduler)

# Step 4: Evaluate both on benign and on adversarial test samples

for name, classifier in (("standard training", classifier_standard), ("LFR", classifier_lfr)):
    attack = ProjectedGradientDescent(
        classifier, norm=np.inf, eps=EPS, eps_step=EPS / 10, max_iter=20, num_random_init=1, verbose=False
    )
    x_test_attack = attack.generate(x_test, y=y_test)
    for samples, x_samples in (("benign", x_test), ("adversarial", x_test_attack)):
        predictions = np.argmax(classifier.predict(x_samples), axis=1)
        accuracy = np.mean(predictions == np.argmax(y_test, axis=1))
        print(f"Accuracy on {samples} test samples after {name}: {accuracy * 100:.2f}%")
