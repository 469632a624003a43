"""ART's TRADES trainer and LFR's side by side: what changes in a script, and one table for both."""

from art.attacks.evasion import ProjectedGradientDescent
from art.defences.trainer import AdversarialTrainerTRADESPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn, optim

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate
from art_lfr.data import digits
from art_lfr.models import digits_cnn

EPS, EPOCHS = 0.1, 10
data = digits()


class Logits(nn.Module):
    """ART takes the children of a Sequential apart; around one it sees a single module."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        return self.layers(x)


def make_classifier():
    model = Logits(digits_cnn())
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
    )


by_trades = make_classifier()
attack = ProjectedGradientDescent(by_trades, eps=EPS, eps_step=EPS / 4, max_iter=10, verbose=False)
trainer = AdversarialTrainerTRADESPyTorch(by_trades, attack, beta=6.0)
trainer.fit(data.x_train, data.y_train, nb_epochs=EPOCHS, batch_size=64)

by_lfr = make_classifier()
trainer = AdversarialTrainerLFRPyTorch(by_lfr, eps=EPS)  # no attack, no beta
trainer.fit(data.x_train, data.y_train, nb_epochs=EPOCHS, batch_size=64)

for name, classifier in (("TRADES", by_trades), ("LFR", by_lfr)):
    print(name)
    print(evaluate(classifier, data.x_test[:200], data.y_test[:200], eps=EPS))
