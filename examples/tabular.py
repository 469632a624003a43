"""LFR for a table: an MLP on scikit-learn's breast cancer data, each column scaled to [0, 1].

Square needs images, so the black-box attack is HopSkipJump: it sees the predicted class alone.
"""

import numpy as np
import torch
from art.attacks.evasion import HopSkipJump
from art.estimators.classification import PyTorchClassifier
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler
from torch import Tensor, nn

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate

EPS = 0.1  # a tenth of a column's range


class Mlp(nn.Module):
    """Two hidden layers; some of ART's attacks hand it float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x.float())
        return logits


def classifier() -> PyTorchClassifier:
    torch.manual_seed(0)
    model = Mlp()
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(model.parameters(), lr=3e-3),
        input_shape=(30,),
        nb_classes=2,
        clip_values=(0.0, 1.0),
    )


x, y = load_breast_cancer(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=150, random_state=0)
scaler = MinMaxScaler(clip=True).fit(x_train)
x_train, x_test = (scaler.transform(part).astype(np.float32) for part in (x_train, x_test))

standard, robust = classifier(), classifier()
standard.fit(x_train, y_train, batch_size=32, nb_epochs=40)
trainer = AdversarialTrainerLFRPyTorch(robust, eps=EPS, max_iter=5)
trainer.fit(x_train, y_train, batch_size=32, nb_epochs=40)

for name, judged in (("standard", standard), ("LFR", robust)):
    black_box = HopSkipJump(judged, norm=np.inf, max_iter=5, max_eval=500, verbose=False)
    attacks = {"PGD-40": "PGD-40", "APGD-CE": "APGD-CE", "HopSkipJump": black_box}
    found = evaluate(judged, x_test[:100], y_test[:100], eps=EPS, attacks=attacks)
    print(f"{name}\n{found}\n")
