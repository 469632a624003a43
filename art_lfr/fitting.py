"""How an ART classifier is fed with data and trained: the methods of the trainer that run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
from art.defences.trainer.trainer import Trainer
from torch.utils.data import DataLoader

from art_lfr.arguments import keywords_of, reject_unknown
from art_lfr.art_data import GeneratorBatches
from art_lfr.batches import Batches, TensorBatches
from art_lfr.classifier import ClassifierAdapter
from art_lfr.loader_data import LoaderBatches
from art_lfr.options import check_fit_arguments
from art_lfr.scheduling import Schedule
from art_lfr.training import Record, TrainingLoop

Array = npt.NDArray[Any]


class ClassifierTrainer(Trainer):
    """A trainer that has a classifier's adapter, a training loop, and a log of its records."""

    _adapter: ClassifierAdapter
    _loop: TrainingLoop
    _log: Callable[[Record], None] | None

    @property
    def history(self) -> list[Record]:
        """One record per epoch of the trainer's life: losses, accuracies, flatness, seconds."""
        return self._loop.state.history

    def fit(
        self,
        x: Array,
        y: Array,
        validation_data: tuple[Array, Array] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        scheduler: Any = None,
        *,
        scheduler_interval: str = "epoch",
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
        callback: Callable[[Record], object] | None = None,
        **unknown: Any,
    ) -> None:
        """Train on (x, y); called again, the run goes on (warm-up and history included).

        Args:
            x: Inputs, shape (N, *input_shape), inside `clip_values`; never modified.
            y: Labels: indices, shape (N,), or one-hot, shape (N, nb_classes).
            validation_data: (x, y), measured after each epoch, as is a part of the training data.
            batch_size: Samples in a batch; a last batch of one joins the one before it.
            nb_epochs: Epochs of this call; resumed, those of the call that was interrupted count.
            scheduler: Any object with `step`.
            scheduler_interval: "epoch", or "batch" for e.g. `OneCycleLR`.
            checkpoint_dir: Where a checkpoint is kept, written atomically after each epoch.
            resume: Go on with the run in `checkpoint_dir`, to bit-identical weights, where there
                is one; start fresh where there is none. One call is resumed, not a loop of calls:
                train for all epochs in one.
            callback: Gets each epoch's record; a true return value ends the run: resumed from a
                directory, it has nothing left to do.

        Raises:
            ValueError, TypeError: For bad data or arguments, before any weight changes.
            TrainingError: On a NaN or infinite loss; the last good weights stay.
        """
        reject_unknown("fit()", unknown, FIT_KEYWORDS)
        directory = check_fit_arguments(nb_epochs, checkpoint_dir, resume, batch_size)
        inputs, targets = self._adapter.tensors(x, y)
        batches = TensorBatches(inputs, targets, batch_size, self._adapter.device)
        self._fit(
            batches,
            nb_epochs,
            validation_data,
            Schedule(scheduler, scheduler_interval),
            directory,
            resume,
            callback,
        )

    def fit_generator(
        self,
        generator: Any,
        nb_epochs: int = 20,
        scheduler: Any = None,
        *,
        validation_data: tuple[Array, Array] | None = None,
        scheduler_interval: str = "epoch",
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
        callback: Callable[[Record], object] | None = None,
        **unknown: Any,
    ) -> None:
        """Train on the batches of an ART `DataGenerator`; see `fit`.

        A resumed run is identical only if the generator gives the same batches again.
        """
        reject_unknown("fit_generator()", unknown, FIT_GENERATOR_KEYWORDS)
        directory = check_fit_arguments(nb_epochs, checkpoint_dir, resume)
        self._fit(
            GeneratorBatches(generator, self._adapter),
            nb_epochs,
            validation_data,
            Schedule(scheduler, scheduler_interval),
            directory,
            resume,
            callback,
        )

    def fit_loader(
        self,
        train_loader: DataLoader[Any],
        nb_epochs: int = 20,
        scheduler: Any = None,
        *,
        validation_data: tuple[Array, Array] | None = None,
        scheduler_interval: str = "epoch",
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
        callback: Callable[[Record], object] | None = None,
        **unknown: Any,
    ) -> None:
        """Train on the (x, y) batches of a torch `DataLoader`; see `fit`.

        For data that does not fit into memory: two batches are held, and those that its
        workers have ready. x and y are as in `fit`. Shuffling and augmentation that draw from
        torch's global generator follow the trainer's `seed`, and a resumed run sees the same
        batches; a loader with a generator of its own goes on where that generator stands.
        """
        reject_unknown("fit_loader()", unknown, FIT_LOADER_KEYWORDS)
        directory = check_fit_arguments(nb_epochs, checkpoint_dir, resume)
        self._fit(
            LoaderBatches(train_loader, self._adapter),
            nb_epochs,
            validation_data,
            Schedule(scheduler, scheduler_interval),
            directory,
            resume,
            callback,
        )

    def predict(self, x: Array, **kwargs: Any) -> Array:
        """The classifier's predictions, shape (N, nb_classes)."""
        return self._adapter.predict(x, **kwargs)

    def _fit(
        self,
        batches: Batches,
        nb_epochs: int,
        validation_data: tuple[Array, Array] | None,
        schedule: Schedule,
        checkpoint_dir: Path | None,
        resume: bool,
        callback: Callable[[Record], object] | None,
    ) -> None:
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, list | tuple) or len(validation_data) != 2:
                raise TypeError(
                    f"validation_data is a {type(validation_data).__name__}; allowed: (x, y)"
                )
            inputs, targets = self._adapter.tensors(*validation_data, suffix=" of validation_data")
            validation = inputs.to(self._adapter.device), targets.to(self._adapter.device)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {callback!r}; allowed: a callable (record), or None")
        # The user may have given the classifier another optimizer since the last call.
        self._adapter.check_optimizer()
        self._loop.optimizer = self._adapter.optimizer
        self._loop.fit(
            batches,
            nb_epochs,
            validation=validation,
            schedule=schedule,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
            callback=callback,
            log=self._log,
        )


FIT_KEYWORDS = keywords_of(ClassifierTrainer.fit, positional=True)
FIT_GENERATOR_KEYWORDS = keywords_of(ClassifierTrainer.fit_generator, positional=True)
FIT_LOADER_KEYWORDS = keywords_of(ClassifierTrainer.fit_loader, positional=True)
