"""Local flatness regularization as an ART trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from art.attacks import EvasionAttack
from art.defences.trainer.trainer import Trainer
from torch.utils.data import DataLoader
from typing_extensions import Unpack

from art_lfr.art.batches import GeneratorBatches, LoaderBatches
from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.art.clean_attack import CleanTermAttack, check_ratio
from art_lfr.core.arguments import Array, check_integer, check_number, keywords_of, part_for
from art_lfr.core.keywords import LFRKeywords, TrainerKeywords, TrainingKeywords
from art_lfr.core.modes import gradients_enabled
from art_lfr.core.processes import Processes
from art_lfr.core.settings import LFRSettings
from art_lfr.core.tables import Table
from art_lfr.data.augmentation import Augmentation
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.models.files import check_savable, save_network
from art_lfr.penalties import Penalty, penalty_for
from art_lfr.storage.description import Description
from art_lfr.storage.files import check_output
from art_lfr.storage.info import ENDING
from art_lfr.storage.records import digest
from art_lfr.training.batches import Batches, TensorBatches
from art_lfr.training.history import History
from art_lfr.training.identity import NAMES
from art_lfr.training.loop import Record, TrainingLoop
from art_lfr.training.options import TrainingOptions, check_fit_arguments
from art_lfr.training.scheduling import Schedule
from art_lfr.training.step import Objective
from art_lfr.training.summary import open_summary

# What an attack of ART has in common with this trainer.
OF_ATTACKS = ("eps", "eps_step", "max_iter")


class RunKeywords(TypedDict, total=False):
    """What `fit`, `fit_generator` and `fit_loader` have in common."""

    scheduler_interval: str | None
    scheduler_metric: str | None
    checkpoint_dir: str | Path | None
    resume: bool
    callback: Callable[[Record], object] | None
    save_to: str | Path | None


class AllTrainerKeywords(TrainerKeywords, total=False):
    """All that `AdversarialTrainerLFRPyTorch` takes beside the classifier."""

    norm: float | str
    eps: float
    eps_step: float | None
    max_iter: int
    attack: Any
    ratio: float
    augment: Augmentation | None
    penalty: str | Penalty
    seed: int
    verbose: bool
    summary_writer: Any


def _refuse_other_calls(args: Sequence[object], keywords: Mapping[str, object]) -> None:
    """Raise WrongTypeError for the arguments of ART's other trainers, saying what to write here."""
    attack = next((value for value in args[2:] if isinstance(value, EvasionAttack)), None)
    attack = attack or keywords.get("attack")
    if len(args) > 2 or keywords.keys() & {"beta", "gamma", "proxy_classifier"}:
        lengths = "eps=..., eps_step=..., max_iter=..."
        if isinstance(attack, EvasionAttack):
            names = [name for name in ("norm", *OF_ATTACKS) if hasattr(attack, name)]
            values = (f"{name}={getattr(attack, name)!r}" for name in names)
            lengths = ", ".join(values).replace("norm=inf", "norm=np.inf")
        if "beta" in keywords or args[2:3] == (attack,):  # TRADES, not LFR
            beta = keywords.get("beta", args[3] if len(args) > 3 else 6.0)
            lengths += f", penalty='trades', lam={beta!r}"
        raise WrongTypeError(
            "AdversarialTrainerLFRPyTorch() is given what ART's TRADES or AWP trainer takes; it "
            "seeks its points itself and has no beta: write "
            f"AdversarialTrainerLFRPyTorch(classifier, {lengths}), and call fit as before"
        )
    for name in ("nb_epochs", "batch_size"):
        if name in keywords:
            raise WrongTypeError(
                f"AdversarialTrainerLFRPyTorch() got {name!r}; allowed: give it to "
                f"fit(x, y, {name}={keywords[name]!r})"
            )


class AdversarialTrainerLFRPyTorch(Trainer):
    """Train an ART classifier on l(x) + lam * max over the eps-ball of ||grad l||_q.

    The classifier brings the network, the loss, the optimizer, `clip_values` and preprocessing.
    All lengths are in the raw units of x, before preprocessing. Source: Xu, Li, Jiang, Xia,
    "Adversarial Defense via Local Flatness Regularization", ICIP 2020; the finite-difference
    estimator is this package's own.

    Args:
        classifier: A `PyTorchClassifier` (or `HuggingFaceClassifierPyTorch`) with an optimizer.
        norm: p of the ball: np.inf, 2 or 1. The gradient is measured in the dual norm q.
        eps: Radius of the ball, >= 0.
        eps_step: Length of an ascent step. None: 2 eps / max_iter, and at most 0.4 eps.
        max_iter: Ascent steps K, >= 0. Two will do where each ascent goes on from that of the epoch
            before (`warm_start`); where it starts anew, take five to ten.
        lam: Weight of the penalty, >= 0. None: eps / 2.
        estimator: "finite-difference", or "exact" (double back-propagation, as published).
        radius: Finite-difference radius h. None: eps / 4.
        batch_norm: "eval": the penalty's passes use running statistics; "train": their own.
        renew_every: An ascent step takes two gradients. Take the first of them, at the point
            itself, in every n-th step only: with 2, 10 steps take 16 gradients instead of 21. For
            LFR by finite differences, and for ascents that start anew: with few steps that go on
            from epoch to epoch it can end in a network that only seems robust.
        autocast: Run the ascent's layers in bfloat16: faster where the processor has it. The loss
            that training descends keeps the model's type. For LFR and networks of float32.
        warm_start: Start the ascent where that of the epoch before ended for the same sample: few
            steps will then do (docs/performance.md). None: wherever the sample is known again, by
            `fit`, or by `fit_loader` from a loader of (x, y, index), and `augment`, if there is
            one, can be undone; otherwise a warning says once that each ascent starts anew. Takes a
            byte for each value of the training data, in checkpoints too.
        precision: "bf16" or "fp16": all layers but the first run in that type, in every pass of a
            step; weights, loss and penalty stay in float32, and so do validation and the
            classifier. Faster where the processor has it (docs/performance.md). "fp16" scales the
            loss (torch's `GradScaler`), and leaves steps out in which it overflows. None: "fp16"
            where the classifier has `use_amp` and a GPU; or accelerate's `mixed_precision`; or
            "float32".
        channels_last: Have the weights of convolutions in channels-last order while training, which
            takes a quarter off for a ResNet on a CPU. None: on a CPU, where the network gives the
            same in it and is large enough to gain. Afterwards they lie as before.
        warmup_epochs: eps and lam rise linearly over the first epochs of the trainer's life.
        held_epochs: The minus term of LFR's finite difference, -l(x' - h s), which training can
            raise without bound, is held over so many epochs and let in linearly over twice as many:
            early it does harm (docs/defaults.md). None: as `warmup_epochs`. 0: never held.
        attack: An ART `EvasionAttack`, or a list of which one is drawn for each batch: the clean
            term is taken on its examples; the ball stays centred on the unattacked x.
        ratio: The part of each batch that `attack` replaces, in (0, 1].
        augment: (batch, generator) -> batch, e.g. `art_lfr.data.random_flip`.
        max_grad_norm: Clip the gradient to this l2 norm; None: do not. `history` has the mean
            `gradient_norm` of each epoch, before the clip, to choose it by.
        penalty: "lfr", or another in its place: "lfr-held", "input-gradient", "cure", "llr",
            "gradalign", "adversarial-training", "trades" (see `art_lfr.penalties`), or a `Penalty`
            of your own.
        weight_perturbation: Take the gradient at weights moved up the loss by this part of their
            norm (AWP; its authors use 0.005 to 0.01). It takes every outer pass twice.
        max_physical_batch_size: Take larger batches in parts of at most so many samples, whose
            gradients add up: less memory, the same step. BatchNorm sees the parts.
        ema_decay: Average the weights with this decay, in (0, 1); the average is what is
            validated and what `fit` leaves in the classifier.
        best_metric: Leave the weights of the best epoch by this metric (a tuple: the others break
            ties), e.g. ("validation_robust_accuracy", "validation_accuracy").
        patience: Stop after so many epochs without a better `best_metric`.
        monitor_samples: Validation (and training) samples attacked after each epoch.
        seed: Seed of everything random; the global random state is left as found.
        verbose: Print a line for each epoch to stderr; on a terminal show a bar too.
        summary_writer: TensorBoard: False, True, a path, or a `SummaryWriter`.

    Training runs on the classifier's device.

    Example::

        from art.estimators.classification import PyTorchClassifier
        from torch import nn, optim
        from art_lfr import AdversarialTrainerLFRPyTorch
        from art_lfr.models import digits_cnn

        network = digits_cnn()
        classifier = PyTorchClassifier(
            network,
            loss=nn.CrossEntropyLoss(),
            optimizer=optim.SGD(network.parameters(), lr=0.1, momentum=0.9),
            input_shape=(1, 8, 8),
            nb_classes=10,
            clip_values=(0, 1),
        )
        trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1)
        trainer.fit(x, y, nb_epochs=20, validation_data=(x_val, y_val))
        trainer.save("robust.safetensors")

    Raises:
        TypeError: For a classifier that is not of PyTorch, or an unknown keyword.
        ValueError: For values out of range, no optimizer, or a preprocessing defence without
            gradients; always before any weight changes.
    """

    @keywords_of(
        LFRSettings,
        TrainingOptions,
        renamed={"steps": "max_iter", "step_size": "eps_step"},
        refuse=_refuse_other_calls,
    )
    def __init__(
        self,
        classifier: Any,
        *,
        norm: float | str = np.inf,
        eps: float = 0.3,
        eps_step: float | None = None,
        max_iter: int = 2,
        attack: Any = None,
        ratio: float = 1.0,
        augment: Augmentation | None = None,
        penalty: str | Penalty = "lfr",
        seed: int = 0,
        verbose: bool = True,
        summary_writer: Any = False,
        **settings: Unpack[TrainerKeywords],
    ) -> None:
        # Under the names of this signature, before the settings see them under the loss's.
        check_number("eps_step", eps_step, low_allowed=False, optional=True)
        check_integer("max_iter", max_iter, low=0)
        lfr = LFRSettings(
            eps=eps,
            norm=norm,
            steps=max_iter,
            step_size=eps_step,
            **part_for(settings, LFRKeywords),
        )
        options = TrainingOptions(
            augment=augment, seed=seed, verbose=verbose, **part_for(settings, TrainingKeywords)
        )
        check_ratio(ratio)
        ClassifierAdapter(classifier).check_optimizer()
        super().__init__(classifier)
        self._penalty = penalty_for(penalty, settings)
        if attack is not None and not self._penalty.weighted:
            raise UsageError(
                f"attack is {attack!r:.80} with penalty {penalty!r}, which seeks its own examples; "
                "allowed: one of the two"
            )
        self._settings, self._options = self._penalty.settled(lfr), options
        self._attack, self._ratio = attack, ratio
        self._penalty_name = penalty if isinstance(penalty, str) else type(penalty).__qualname__
        self._batches: dict[str, Any] = {}  # those of the last fit: their size, and a check sum
        self._summary_writer = summary_writer
        self._assemble()

    def _assemble(self) -> None:
        """Make the loop from the arguments that are kept, and from ART's classifier as it is."""
        self._adapter = adapter = ClassifierAdapter(self._classifier)
        processes = Processes()
        processes.check_device(adapter.device)
        precision = self._options.precision or adapter.precision or processes.precision
        attack, eps = self._attack, self._settings.eps
        objective = Objective(
            adapter.module,
            adapter.criterion,
            adapter.box,
            None if attack is None else CleanTermAttack(attack, self._ratio, adapter, eps),
            self._penalty,
            processes,
        )
        self._log = open_summary(self._summary_writer if processes.main else False)
        self._loop = TrainingLoop(
            objective,
            adapter.network,
            adapter.optimizer,
            settings=self._settings,
            options=replace(self._options, precision=precision or "float32"),
            parts=adapter.parts(),
            description=Description(
                {"classifier": adapter.classifier, "adapter": adapter, "network": adapter.network}
            ),
        )

    def __getstate__(self) -> dict[str, Any]:
        """The arguments, the classifier as ART pickles it, and where the run is."""
        made_here = ("_adapter", "_loop", "_log")
        state = {name: value for name, value in vars(self).items() if name not in made_here}
        return {**state, "run": self._loop.state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        run = state.pop("run")
        self.__dict__.update(state)
        self._assemble()
        run.history = History(run.history)
        self._loop.state = run

    @property
    def history(self) -> History:
        """Losses, accuracies, flatness and seconds of each epoch of the trainer's life.

        A list of dictionaries, which prints as a table.
        """
        return self._loop.state.history

    def _fit(
        self,
        batches: Batches,
        nb_epochs: int,
        scheduler: Any,
        validation_data: tuple[Array, Array] | None,
        *,
        scheduler_interval: str | None = None,
        scheduler_metric: str | None = None,
        checkpoint_dir: str | Path | None = None,
        resume: bool = False,
        callback: Callable[[Record], object] | None = None,
        save_to: str | Path | None = None,
    ) -> None:
        directory = check_fit_arguments(nb_epochs, checkpoint_dir, resume)
        if save_to is not None:
            save_to = check_output(save_to, "save_to", (ENDING,))
            check_savable(self._loop.network)
            self._adapter.info()  # preprocessing that a file cannot hold is refused
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, list | tuple) or len(validation_data) != 2:
                raise WrongTypeError(
                    f"validation_data is a {type(validation_data).__name__}; allowed: (x, y)"
                )
            inputs, targets = self._adapter.tensors(*validation_data, suffix=" of validation_data")
            validation = inputs.to(self._adapter.device), targets.to(self._adapter.device)
        if callback is not None and not callable(callback):
            raise WrongTypeError(f"callback is {callback!r}; allowed: a callable (record), or None")
        # The user may have given the classifier another one of these since the last call.
        self._adapter.check_optimizer()
        self._loop.optimizer = self._adapter.optimizer
        self._adapter.follow()
        self._loop.follow(self._adapter.criterion, self._adapter.parts())
        self._loop.fit(
            batches,
            nb_epochs,
            validation=validation,
            schedule=Schedule(scheduler, scheduler_interval, scheduler_metric),
            checkpoint_dir=directory,
            resume=resume,
            callback=callback,
            log=self._log,
        )
        self._batches = {"batch_size": batches.batch_size}
        if isinstance(batches, TensorBatches):
            parts = batches.parts()
            self._batches["digest"] = digest({"x": parts["x"], "y": parts["y"]})
        if save_to is not None:
            self.save(save_to)

    def save(self, path: str | Path, *, model: str | None = None, data: str | None = None) -> None:
        """Write the network to a .safetensors file that says what it is, atomically.

        It says how the network is built and was trained, for which eps, norm and `clip_values`,
        with which preprocessing, and what was last measured: see `art_lfr.models.NetworkInfo`.
        `art_lfr.models.load_network(path)` makes the network again, and `art-lfr evaluate
        --weights path` attacks it. Of several processes the main one writes.

        Args:
            path: A name ending in .safetensors.
            model: How the network is built, as "module.path:factory". None: a built-in network is
                recognised, any other is then asked for on loading.
            data: What it was trained on, such as "mnist".

        Raises:
            ValueError: For another ending, for a `model` that makes another network, and for
                weights or preprocessing that the file cannot hold.
            PlaceError: An OSError, where the file cannot be written.
        """
        if not self._loop.objective.processes.main:
            return
        settled = self._loop.options
        options = {**vars(settled), "augment": settled.augment is not None}
        settings = {**asdict(self._settings), **options}
        settings = {NAMES.get(name, name): value for name, value in settings.items()}
        eps, norm = settings.pop("eps"), settings.pop("norm")
        settings |= {
            "penalty": self._penalty_name,
            "attack": None if self._attack is None else type(self._attack).__name__,
            "optimizer": type(self._adapter.optimizer).__name__,
            "epochs": self._loop.state.epoch,
            "batch_size": self._batches.get("batch_size"),
        }
        info = self._adapter.info(
            model=model,
            eps=eps,
            norm=f"{norm:g}",
            data=data,
            data_digest=self._batches.get("digest"),
            settings=settings,
            metrics=self.history[-1] if self.history else {},
        )
        save_network(path, self._loop.network, info)

    @keywords_of(_fit)
    @gradients_enabled()
    def fit(
        self,
        x: Array,
        y: Array,
        validation_data: tuple[Array, Array] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        scheduler: Any = None,
        **run: Unpack[RunKeywords],
    ) -> None:
        """Train on (x, y); called again, the run goes on (warm-up and history included).

        Args:
            x: Inputs, shape (N, *input_shape), inside `clip_values`; never modified.
            y: Labels: indices, shape (N,), or one-hot, shape (N, nb_classes).
            validation_data: (x, y), measured after each epoch, as is a part of the training data.
            batch_size: Samples in a batch; a last batch of one joins the one before it.
            nb_epochs: Epochs of this call. Where a run is resumed, those that it has finished
                count.
            scheduler: Any object with `step`.
            scheduler_interval: When it steps: after each "epoch" or "batch". None: after each batch
                for `OneCycleLR`, `CyclicLR` and any other that is made for the number of batches
                in all; after each epoch for the rest.
            scheduler_metric: What a `ReduceLROnPlateau` is shown after each epoch beyond the
                warm-up: a metric of `history`. None: "validation_robust_loss" (mode "max":
                "validation_robust_accuracy"), or "loss" without `validation_data`.
            checkpoint_dir: Where a checkpoint is kept, written atomically after each epoch.
            resume: Go on with the run in `checkpoint_dir`, to bit-identical weights, where there
                is one; start fresh where there is none. One call is resumed, not a loop of calls:
                train for all epochs in one.
            callback: Gets each epoch's record; a true return value ends the run, for a later
                call with `resume` too.
            save_to: A .safetensors file for the trained network: see `save`.

        Raises:
            ValueError, TypeError: For bad data or arguments, before any weight changes.
            TrainingError: On a NaN or infinite loss; the last good weights stay.
        """
        check_integer("batch_size", batch_size, low=1)
        inputs, targets = self._adapter.tensors(x, y)
        batches = TensorBatches(inputs, targets, int(batch_size), self._adapter.device)
        self._fit(batches, nb_epochs, scheduler, validation_data, **run)

    @keywords_of(_fit)
    @gradients_enabled()
    def fit_generator(
        self,
        generator: Any,
        nb_epochs: int = 20,
        scheduler: Any = None,
        *,
        validation_data: tuple[Array, Array] | None = None,
        **run: Unpack[RunKeywords],
    ) -> None:
        """Train on the batches of an ART `DataGenerator`; see `fit`.

        A resumed run is identical only if the generator gives the same batches again.
        """
        batches = GeneratorBatches(generator, self._adapter)
        self._fit(batches, nb_epochs, scheduler, validation_data, **run)

    @keywords_of(_fit)
    @gradients_enabled()
    def fit_loader(
        self,
        train_loader: DataLoader[Any],
        nb_epochs: int = 20,
        scheduler: Any = None,
        *,
        validation_data: tuple[Array, Array] | None = None,
        **run: Unpack[RunKeywords],
    ) -> None:
        """Train on the (x, y) batches of a torch `DataLoader`; see `fit`.

        For data that does not fit into memory: two batches are held, and those that its
        workers have ready. x and y are as in `fit`. Shuffling and augmentation that draw from
        torch's global generator follow the trainer's `seed`, and a resumed run sees the same
        batches; a loader with a generator of its own goes on where that generator stands.
        """
        batches = LoaderBatches(train_loader, self._adapter)
        self._fit(batches, nb_epochs, scheduler, validation_data, **run)

    def __repr__(self) -> str:
        s = self._settings
        return (
            f"{type(self).__name__}(eps={s.eps:g}, norm={s.norm:g}, max_iter={s.steps}, "
            f"lam={s.lam:g}, radius={s.radius:g}), {self._loop.state.epoch} epochs trained"
        )

    def _repr_html_(self) -> str:
        settings, state = self._settings, self._loop.state
        values = {
            "network": type(self._adapter.network).__name__,
            "eps, norm": f"{settings.eps:g}, {settings.norm:g}",
            "max_iter, eps_step": f"{settings.steps}, {settings.step_size:.4g}",
            "lam, radius": f"{settings.lam:.4g}, {settings.radius:.4g}",
            "penalty": repr(self._penalty),
            "epochs trained": str(state.epoch),
        }
        title = type(self).__name__
        table = Table(["setting", "value"], [*map(list, values.items())], title=title, left=(0, 1))
        return table.to_html() + (state.history.shown().to_html() if state.history else "")

    def predict(self, x: Array, **kwargs: Any) -> Array:
        """The classifier's predictions, shape (N, nb_classes)."""
        return self._adapter.predict(x, **kwargs)
