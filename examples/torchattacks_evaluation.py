"""A network trained with LFR under attacks of torchattacks, AutoAttack and LFR: one table."""

import torch
import torchattacks
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate, masking_report
from art_lfr.data import digits
from art_lfr.models import digits_cnn
from art_lfr.torchattacks import LocalFlatnessAttack

EPS = 0.1
data = digits()
model = digits_cnn()
classifier = PyTorchClassifier(
    model,
    loss=nn.CrossEntropyLoss(),
    optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
    input_shape=(1, 8, 8),
    nb_classes=10,
    clip_values=(0.0, 1.0),
)
trainer = AdversarialTrainerLFRPyTorch(classifier, eps=EPS, max_iter=3)
trainer.fit(data.x_train, data.y_train, nb_epochs=10, batch_size=64)

network = model.eval()
found = evaluate(
    classifier,
    data.x_test[:200],
    data.y_test[:200],
    eps=EPS,
    attacks={
        "PGD": torchattacks.PGD(network, eps=EPS, alpha=EPS / 10, steps=20),
        "MI-FGSM": torchattacks.MIFGSM(network, eps=EPS, alpha=EPS / 5),
        "least flat": LocalFlatnessAttack(network, eps=EPS),  # where the loss is steepest
        "APGD-T": "APGD-T",
        "Square": "Square",  # needs no gradients
    },
)
print(found)
print(masking_report(classifier, data.x_test[:100], data.y_test[:100], eps=EPS))
