"""LFR in an ART pipeline: what changes against ART's TRADES trainer is marked with "<-"."""

from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import nn, optim

from art_lfr import AdversarialTrainerLFRPyTorch  # <- was AdversarialTrainerTRADESPyTorch
from art_lfr.data import digits
from art_lfr.models import digits_cnn

data = digits()
model = digits_cnn()
classifier = PyTorchClassifier(
    model,
    loss=nn.CrossEntropyLoss(),
    optimizer=optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
    input_shape=(1, 8, 8),
    nb_classes=10,
    clip_values=(0.0, 1.0),
)

trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=3)  # <- was attack, beta
trainer.fit(data.x_train, data.y_train, nb_epochs=10, batch_size=64)

attack = ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.01, max_iter=40, verbose=False)
x, y = data.x_test[:200], data.y_test[:200]
for name, inputs in (("clean", x), ("PGD-40", attack.generate(x, y))):
    accuracy = (classifier.predict(inputs).argmax(axis=1) == y).mean()
    print(f"{name}: {100 * accuracy:.1f} % of {len(x)} images")
