"""The two trainings of the demonstration: ART's own, and LFR."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
from art_lfr.core.randomness import preserved_random_state, seed_global_generators
from art_lfr.core.settings import LFRSettings
from art_lfr.data import ImageData
from art_lfr.models import digits_cnn
from art_lfr.training.monitoring import Monitor

# lam: the better one at this eps on validation images (docs/defaults.md); few steps: quick.
SETTINGS: dict[str, Any] = {"eps": 0.1, "lam": 0.1, "max_iter": 5}
EPOCHS = 30
WARMUP_EPOCHS = 4.0
BATCH_SIZE = 64
LEARNING_RATE = 0.1


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one core: the network is too small for more, and the sums do not depend on it.

    Two threads on a busy machine wait for each other, and take several times as long as one.
    """
    found = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(found)


def make_classifier(seed: int) -> PyTorchClassifier:
    """The network that both start from, in ART's wrapper with an optimizer of its own."""
    model = digits_cnn(seed)
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def train_standard(
    classifier: PyTorchClassifier,
    data: ImageData,
    epochs: int,
    seed: int,
    tick: Callable[..., None],
) -> list[dict[str, float]]:
    """ART's own `fit`, epoch by epoch, with the same measurements as the LFR trainer's."""
    adapter = ClassifierAdapter(classifier)
    x, y = adapter.tensors(data.x_validation, data.y_validation)
    monitor = Monitor("validation", x, y, len(x), len(x), seed)
    settings = lfr_settings()
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        classifier.optimizer, LEARNING_RATE, total_steps=epochs + 1
    )
    history: list[dict[str, float]] = []
    with preserved_random_state(torch.device("cpu")):
        # ART shuffles with the global generators.
        seed_global_generators(seed)
        for epoch in range(epochs):
            classifier.fit(
                data.x_train,
                data.y_train,
                batch_size=BATCH_SIZE,
                nb_epochs=1,
                scheduler=scheduler,
                verbose=False,
            )
            box = adapter.box(x)
            metrics, _ = monitor.measure(adapter.module, adapter.criterion, box, settings)
            history.append({"epoch": epoch + 1, **metrics})
            tick()
    return history


def train_lfr(
    classifier: PyTorchClassifier,
    data: ImageData,
    epochs: int,
    seed: int,
    tick: Callable[..., None],
) -> list[dict[str, float]]:
    """This package's trainer, with a learning rate that changes after each batch."""
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, **SETTINGS, warmup_epochs=warmup_epochs(epochs), seed=seed, verbose=False
    )
    steps = epochs * -(-len(data.x_train) // BATCH_SIZE)
    trainer.fit(
        data.x_train,
        data.y_train,
        validation_data=(data.x_validation, data.y_validation),
        batch_size=BATCH_SIZE,
        nb_epochs=epochs,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(
            classifier.optimizer, LEARNING_RATE, total_steps=steps + 1
        ),
        scheduler_interval="batch",
        callback=tick,
    )
    return trainer.history


def lfr_settings() -> LFRSettings:
    """The settings under which both classifiers are measured after each epoch."""
    return LFRSettings(eps=SETTINGS["eps"], lam=SETTINGS["lam"], steps=SETTINGS["max_iter"])


def warmup_epochs(epochs: int) -> float:
    """Few epochs leave less time for the rise of eps and lam."""
    return min(WARMUP_EPOCHS, epochs / 3)
