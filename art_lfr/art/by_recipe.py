"""Training as a row of the table of data sets says: what `art-lfr train` and the demo both do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from typing_extensions import Unpack

from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
from art_lfr.core.keywords import TrainerKeywords
from art_lfr.data import ImageData, Recipe
from art_lfr.data.augmentation import BY_NAME
from art_lfr.errors import UsageError
from art_lfr.models import Preprocessed
from art_lfr.training.loop import Record

# Networks that train on one core.
SMALL = ("digits-cnn",)
# By the names of `Recipe.optimizer`.
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def make_classifier(
    model: nn.Module, data: ImageData, recipe: Recipe, classes: int, device: str | None = None
) -> PyTorchClassifier:
    """ART's classifier around a network, with cross-entropy and the optimizer of the recipe.

    `device` is as in `device_type`.
    """
    preprocessing = None
    if isinstance(model, Preprocessed):  # so that what is saved is the network alone again
        preprocessing, model = (model.mean.numpy(), model.std.numpy()), model.network
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=_OPTIMIZERS[recipe.optimizer](
            trainable, lr=recipe.lr, weight_decay=recipe.weight_decay
        ),
        input_shape=data.x_train.shape[1:],
        nb_classes=classes,
        clip_values=data.bounds,
        preprocessing=preprocessing,
        device_type=device_type(device),
    )


def device_type(device: str | None) -> Literal["cpu", "gpu"]:
    """What ART calls "cpu", "cuda" or "cuda:1"; None: a GPU where there is one.

    ART takes torch's current GPU, so that of the name becomes it. Raises ValueError where there is
    no such GPU.
    """
    if device is None or device == "cpu":
        return "gpu" if device is None else "cpu"
    index = int(re.sub(r"\D", "", device) or 0)
    if index >= torch.cuda.device_count():
        raise UsageError(f"device is {device!r}; allowed: a GPU that torch finds, or cpu")
    if ":" in device:
        torch.cuda.set_device(index)
    return "gpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one core of the CPU.

    For networks that are too small for more: two threads on a busy machine wait for each other,
    and take several times as long as one. And their sums differ in the last digits.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_trainer(
    classifier: PyTorchClassifier,
    recipe: Recipe,
    *,
    penalty: str = "lfr",
    seed: int = 0,
    verbose: bool = True,
    eps_step: float | None = None,
    **settings: Unpack[TrainerKeywords],
) -> AdversarialTrainerLFRPyTorch:
    """The trainer of the recipe; `settings` come before those of the recipe."""
    keywords: dict[str, Any] = {**recipe.objective(penalty), **settings}
    return AdversarialTrainerLFRPyTorch(
        classifier,
        norm=recipe.norm,
        eps=recipe.eps,
        eps_step=eps_step,
        max_iter=recipe.max_iter,
        augment=BY_NAME[recipe.augmentation],
        penalty=penalty,
        seed=seed,
        verbose=verbose,
        **keywords,
    )


def one_cycle(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> OneCycleLR:
    """The learning rate up to that of the recipe and down again, over so many steps."""
    return OneCycleLR(optimizer, recipe.lr, total_steps=steps + 1)


def fit(
    trainer: AdversarialTrainerLFRPyTorch,
    data: ImageData,
    recipe: Recipe,
    *,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    callback: Callable[[Record], object] | None = None,
) -> None:
    """Train on the training images; the validation images, if any, are measured each epoch.

    The smallest networks train on one core.
    """
    batches = -(-len(data.x_train) // recipe.batch_size)
    validated = len(data.x_validation) > 0
    with one_thread() if recipe.model in SMALL else nullcontext():
        trainer.fit(
            data.x_train,
            data.y_train,
            validation_data=(data.x_validation, data.y_validation) if validated else None,
            batch_size=recipe.batch_size,
            nb_epochs=recipe.epochs,
            scheduler=one_cycle(
                trainer.get_classifier().optimizer, recipe, recipe.epochs * batches
            ),
            scheduler_interval="batch",
            checkpoint_dir=checkpoint_dir,
            resume=resume,
            callback=callback,
        )
