"""The training loop that every entry point calls.

It needs a module, an optimizer and batches; neither ART nor any attack library.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from tqdm import tqdm

from art_lfr.core import progress
from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import wrong_unit
from art_lfr.core.modes import parameters_of, protected_buffers, training_mode
from art_lfr.core.precision import (
    TYPES,
    NarrowModel,
    check_precision,
    loss_scaler,
    lost_in_bfloat16,
)
from art_lfr.core.processes import one_process
from art_lfr.core.randomness import RandomState, preserved_random_state, seed_global_generators
from art_lfr.core.settings import LFRSettings
from art_lfr.data.augmentation import View, augmented
from art_lfr.errors import TrainingError, UsageError
from art_lfr.penalties import AdversarialTraining, Penalty, Trades
from art_lfr.storage.description import Description
from art_lfr.storage.files import locked
from art_lfr.storage.identity import Identity
from art_lfr.training import history
from art_lfr.training.alarms import Alarms
from art_lfr.training.averaging import copied_state, put_state, tensors_of
from art_lfr.training.batches import Batch, Batches
from art_lfr.training.best import check_metrics
from art_lfr.training.checkpoint import RunState
from art_lfr.training.epoch import EpochSums, collapse, has_learnt
from art_lfr.training.identity import RunIdentity
from art_lfr.training.layout import (
    PROBED,
    channels_last,
    check_takes_channels_last,
    gains_by_channels_last,
)
from art_lfr.training.monitoring import Monitor, monitors_for
from art_lfr.training.options import TrainingOptions
from art_lfr.training.scheduling import Schedule
from art_lfr.training.step import NonFiniteError, Objective, OptimizerError

Record: TypeAlias = "dict[str, float]"
# Why an ascent cannot go on from the epoch before, and what would help.
NOT_KNOWN = (
    "the batches do not say which sample is which; allowed: `fit`, or `fit_loader` with a loader "
    "that gives (x, y, index)"
)
NOT_UNDONE = (
    "augment does not say what it has done; allowed: RandomCrop, random_flip, Compose of these, or "
    "an art_lfr.data.InvertibleAugmentation"
)


class TrainingLoop:
    """Trains one network with LFR, over as many calls of `fit` as the user makes.

    Args:
        objective: What is descended.
        network: The module whose weights are kept, averaged and saved (part of the model).
        optimizer: Over the network's parameters; frozen ones and groups are left as they are.
        settings: The LFR objective's settings.
        options: All else.
        parts: What else makes a run the same: the parts of its identity that the network's user
            knows, by their names.
        description: What describes these.
    """

    def __init__(
        self,
        objective: Objective,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        settings: LFRSettings,
        options: TrainingOptions,
        parts: Mapping[str, object] | None = None,
        description: Description | None = None,
    ) -> None:
        precision = options.precision or "float32"
        check_precision(precision, objective.model)
        _check_goes_with(precision, objective.penalty, settings)
        # What is validated is the network as it will be used.
        self._validated = objective.model
        if precision != "float32":
            objective = replace(objective, model=NarrowModel(objective.model, TYPES[precision]))
        self.objective = objective
        self.network: nn.Module = getattr(network, "_orig_mod", network)  # as if not compiled
        self.optimizer = optimizer
        self.settings = settings
        self.options = options
        self._description = description or Description({"network": network})
        self._parts = {
            "loss": objective.criterion,
            "attack": objective.attack,
            "penalty": objective.penalty,
            **(parts or {}),
        }
        for part in (*self._parts.values(), options.augment):
            self._description.of(part)  # before training: they may keep what they see
        self.state = RunState(options.seed)
        if precision == "fp16":
            self.state.scaler = loss_scaler(self._device)
        # Weights of which a loss was finite, and those of the last epoch that ended with something
        # learnt: of the one before, or of the one before that.
        self._good: dict[str, Tensor] = {}
        self._learnt: dict[str, Tensor] | None = None
        self._learnt_epoch = 0
        self._doubted = False  # whether what is doubtful in the data of this call has been told
        self._alarms = Alarms(settings, objective.penalty, options, shown=objective.processes.main)
        # Whether weights are in channels-last order in an epoch; not known before the first sample.
        self._channels_last: bool | None = None

    def fit(
        self,
        batches: Batches,
        nb_epochs: int,
        *,
        validation: tuple[Tensor, Tensor] | None = None,
        schedule: Schedule | None = None,
        checkpoint_dir: Path | None = None,
        resume: bool = False,
        callback: Callable[[Record], object] | None = None,
        log: Callable[[Record], None] | None = None,
    ) -> None:
        """Train for `nb_epochs` epochs, or for what is left of them when a run is resumed.

        `callback` gets each epoch's record; a true return value stops training. `log` gets the
        record too. The global random state, module modes and flags are left as found.

        Raises:
            TrainingError: On a NaN or infinite loss or weight; the network then holds the last
                weights that are known to be good.
            UsageError: For an optimizer whose step raises; the weights are those of before.
        """
        schedule = schedule or Schedule(None)
        self._doubted = False
        monitors = monitors_for(batches, validation, self.options)
        self._check(batches, nb_epochs, schedule, monitors, checkpoint_dir, resume)
        processes = self.objective.processes
        identity = RunIdentity(
            {**self._parts, **schedule.parts()},
            self._description,
            settings=self.settings,
            options=self.options,
            network=self.network,
            optimizer=self.optimizer,
            batches=batches,
            validation=validation,
            main=processes.main,
        )
        everywhere = (identity.same_everywhere(), len(batches))
        processes.check_same("data, settings or length of an epoch", everywhere)
        with ExitStack() as stack:
            stack.enter_context(preserved_random_state(self._device))
            # A context of the caller's would keep narrow copies of weights that change.
            stack.enter_context(torch.autocast(self._device.type, enabled=False))
            self._lock(checkpoint_dir, stack)
            self._begin(schedule, nb_epochs, checkpoint_dir, resume, identity)
            shown = stack.enter_context(
                progress.bar(
                    "LFR",
                    shown=self.options.verbose and processes.main,
                    total=nb_epochs * len(batches),
                    initial=(self.state.epoch - self.state.first_epoch) * len(batches),
                    unit="batch",
                )
            )
            self._save(schedule)
            before = None if checkpoint_dir is None else self._used(batches)
            while self.state.epoch < self.state.last_epoch and not self.state.stopped:
                self._run_epoch(batches, schedule, monitors, shown, callback, log)
                self._alarms.collapse(self.state, ended=False)
                if before is not None:
                    self._alarms.lost_state(before, self._used(batches))
                    before = None
        self.state.hand_over(self.network)
        self._alarms.collapse(self.state, ended=True)
        self._alarms.short_training(self.state.epoch)

    def follow(self, criterion: Criterion, parts: Mapping[str, object]) -> None:
        """Train on with another loss, or with other things that make a run the same."""
        self.objective = replace(self.objective, criterion=criterion)
        self._parts |= {**parts, "loss": criterion}

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _begin(
        self,
        schedule: Schedule,
        nb_epochs: int,
        checkpoint_dir: Path | None,
        resume: bool,
        identity: RunIdentity,
    ) -> None:
        """Weights, position and random states as the first epoch of this call finds them.

        From memory or from the checkpoint; in all processes those of the main one.
        """
        processes = self.objective.processes
        self.state.run_id = processes.from_main(self.state.run_id)
        if processes.size > 1:
            first = {name: value.cpu() for name, value in tensors_of(self.network).items()}
            put_state(self.network, processes.from_main(first))
        self.state.begin(
            self.network,
            self.optimizer,
            schedule,
            nb_epochs=nb_epochs,
            ema_decay=self.options.ema_decay,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
            identity=identity,
        )
        processes.check_same("the epoch of the checkpoint", self.state.epoch)
        if self.state.random is None:
            seed_global_generators(self.options.seed)
        else:
            RandomState.from_plain(self.state.random, self._device).restore()
        self.state.random = RandomState.capture(self._device).to_plain()
        self._good, self._learnt = copied_state(self.network), None

    def _run_epoch(
        self,
        batches: Batches,
        schedule: Schedule,
        monitors: list[Monitor],
        bar: tqdm[Any],
        callback: Callable[[Record], object] | None,
        log: Callable[[Record], None] | None,
    ) -> None:
        """Train, measure, tell and save: one epoch from checkpoint to checkpoint."""
        processes = self.objective.processes
        if not processes.main:  # other masks than those of the main process
            seed_global_generators(self._seed_of(processes.rank))
        record = self._train_epoch(batches, schedule, bar)
        if monitors:
            bar.set_description("validation")
            began = time.perf_counter()
            record.update(self._measure(monitors, bar))
            record["validation_seconds"] = time.perf_counter() - began
        record = processes.from_main(record)
        self._alarms.useless(record)
        self._alarms.hiding(record)
        text = history.line(record, self.state.last_epoch)
        progress.line(text, shown=self.options.verbose and processes.main)
        schedule.after_epoch(record)
        stop = self.state.end_epoch(record, self.network, self.options)
        self.state.random = RandomState.capture(self._device).to_plain()
        # A callback may evaluate the network: the other processes do not.
        with preserved_random_state(self._device), one_process():
            if log is not None and processes.main:
                log(record)
            if callback is not None and processes.main:
                stop = bool(callback(dict(record))) or stop
        self.state.stopped = processes.from_main(stop)
        self._save(schedule)

    def _lock(self, checkpoint_dir: Path | None, stack: ExitStack) -> None:
        """Have the directory for this run alone; the same error in all processes where not."""
        self.objective.processes.main_enters(stack, locked(checkpoint_dir, "checkpoint_dir"))

    def _save(self, schedule: Schedule) -> None:
        """Write the checkpoint once, when no process reads an earlier one any more."""
        self.objective.processes.wait()
        if self.objective.processes.main:
            self.state.save(self.network, self.optimizer, schedule)
        self.objective.processes.wait()

    def _seed_of(self, rank: int) -> int:
        """A seed for the masks of one process in the epoch that begins."""
        return (self.options.seed + 1_000_003 * rank + 7919 * self.state.epoch) % 2**63

    def _check(
        self,
        batches: Batches,
        nb_epochs: int,
        schedule: Schedule,
        monitors: list[Monitor],
        checkpoint_dir: Path | None,
        resume: bool,
    ) -> None:
        """Refuse what cannot work before anything changes."""
        if not any(parameter.requires_grad for parameter in parameters_of(self.optimizer)):
            raise UsageError(
                "classifier has no trainable parameter in its optimizer; allowed: at least one "
                "parameter with requires_grad"
            )
        if self.options.warm_start and batches.samples is None:
            raise UsageError(f"warm_start is True, but {NOT_KNOWN}")
        monitored = tuple(monitor.prefix for monitor in monitors)
        check_metrics(self.options.best_metric, monitored)
        sample = batches.sample(self.options.monitor_samples, self.options.seed)
        if sample is not None:
            self._check_batch(sample[0], min(batches.batch_size, len(sample[0])))
            self._choose_order(sample[0])
        schedule.check_drives(self.optimizer)
        schedule.settle(
            nb_epochs,
            len(batches),
            resume=resume,
            warmup_epochs=self.options.warmup_epochs,
            monitored=monitored,
        )
        if checkpoint_dir is not None:
            schedule.check_can_be_saved()

    def _choose_order(self, x: Tensor) -> None:
        """Choose once whether weights are in channels-last order; x are samples."""
        if self._channels_last is not None:
            return
        chosen, model = self.options.channels_last, self._validated
        x = x[:PROBED].to(self._device)
        if chosen:
            check_takes_channels_last(model, x)
        if chosen is None:
            chosen = gains_by_channels_last(model, x, self.optimizer)
        self._channels_last = chosen

    def _check_batch(self, x: Tensor, size: int, depth: int = 8) -> None:
        """Refuse data that the settings cannot train on; x are the first samples that are known.

        What is doubtful is warned of once in a call of `fit`; `depth`: frames from here to the line
        of the caller.
        """
        box = self.objective.bounds_for(x)
        unit = wrong_unit(self.settings.eps, self.settings.norm, box)
        narrow = None
        if self.options.precision == "bf16" and self.settings.lam > 0:
            narrow = lost_in_bfloat16(self.settings.radius, x)
        # Adversarial training and TRADES take no difference, and have no use for a radius.
        differences = not isinstance(self.objective.penalty, AdversarialTraining | Trades)
        radius = self.settings.check_radius(x) if differences else None
        narrow = narrow if differences else None
        for warning in (radius, unit, narrow, self._alarms.short_path):
            if warning is not None and not self._doubted:
                warnings.warn(warning, UserWarning, stacklevel=depth)
        self._doubted = True
        if min(size, self.options.max_physical_batch_size or size) == 1:
            with (
                torch.no_grad(),
                preserved_random_state(self._device),
                training_mode(self.objective.model, self.network, parameters_of(self.optimizer)),
                protected_buffers(self.network),
            ):
                try:
                    self.objective.model(x[:1].to(self._device, copy=True))
                except ValueError as error:
                    if "more than 1 value per channel" not in str(error):
                        raise
                    raise UsageError(
                        "batch_size (or max_physical_batch_size, or the number of samples) is 1 "
                        "with a BatchNorm, which has no statistics of a single value; allowed: at "
                        "least 2, or GroupNorm"
                    ) from error

    def _train_epoch(self, batches: Batches, schedule: Schedule, bar: tqdm[Any]) -> Record:
        """One pass over the data; the record of its means."""
        began = time.perf_counter()
        epoch, options = self.state.epoch, self.options
        candidate, known = copied_state(self.network), set(self.optimizer.state)
        if self.state.learnt:
            self._learnt, self._learnt_epoch = candidate, epoch
        elif epoch > self._learnt_epoch + 1:
            self._learnt = None
        sums = EpochSums(f"LFR epoch {epoch + 1}/{self.state.last_epoch}", bar)
        settings = self.settings
        epoch_batches = batches.epoch(self.state.generator)
        if not batches.in_memory and self.objective.processes.size > 1:
            read = (batch.to(torch.device("cpu")) for batch in epoch_batches)
            sent = self.objective.processes.main_reads(read)
            epoch_batches = (batch.to(self._device) for batch in sent)
        # In each epoch anew: a resumed run knows what one that was not stopped knows.
        self.objective.comparison.forget()
        trained = parameters_of(self.optimizer)
        with ExitStack() as stack:
            stack.enter_context(training_mode(self.objective.model, self.network, trained))
            if isinstance(self.objective.model, NarrowModel):
                stack.enter_context(self.objective.model.first_layer_in_full())
            for index, batch in enumerate(epoch_batches):
                x, ends, view = batch.x, None, None
                if index == 0:
                    if not batches.in_memory:
                        self._check_batch(x, len(x), depth=9)
                        self._choose_order(x)
                    if self._channels_last:
                        stack.enter_context(channels_last(self.network, self.optimizer))
                epochs = epoch + (index + 1) / len(batches)
                settings = self.settings.warmed(epochs, options.warmup_epochs)
                penalty = self.objective.penalty.let_in(options.let_in(epochs))
                if options.augment is not None:
                    box = self.objective.bounds_for(x)
                    x, view = augmented(options.augment, x, self.state.generator, box)
                rows = self._known_rows(batch, batches.samples, view)
                if rows is not None:
                    ends = self.state.ends.of(rows, x, batches.samples or 0, view)
                try:
                    result = replace(self.objective, penalty=penalty).step(
                        x,
                        batch.y,
                        optimizer=self.optimizer,
                        settings=settings,
                        generator=self.state.generator,
                        max_grad_norm=options.max_grad_norm,
                        weight_perturbation=options.weight_perturbation,
                        max_physical_batch_size=options.max_physical_batch_size,
                        ends=ends,
                        scaler=self.state.scaler,
                    )
                except NonFiniteError as error:
                    what = f"{error} in epoch {epoch + 1}, batch {index}"
                    raise self._failure(what) from None
                except OptimizerError:
                    put_state(self.network, self._good)
                    self.optimizer.zero_grad(set_to_none=True)
                    for parameter in set(self.optimizer.state) - known:
                        del self.optimizer.state[parameter]
                    raise
                schedule.after_batch()
                if result is None:  # float16 has overflowed; the scale of the loss is halved
                    bar.update()
                    continue
                if self.state.average is not None:
                    self.state.average.update(self.network)
                # These weights gave a finite loss: they are good ones to fall back on.
                self._good = candidate
                if rows is not None and result.ends is not None:
                    self.state.ends.keep(rows, x, result.ends, view)
                sums.add(result, len(x))
        if sums.empty:
            raise self._failure(f"float16 overflows in each batch of epoch {epoch + 1}")
        if not all(bool(v.isfinite().all()) for v in tensors_of(self.network).values()):
            raise self._failure(f"a weight is not finite after epoch {epoch + 1}")
        self._stop_where_collapsed(sums)
        return {
            "epoch": epoch + 1,
            **sums.means,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "eps": settings.eps,
            "lam": settings.lam,
            "seconds": time.perf_counter() - began,
        }

    def _known_rows(self, batch: Batch, samples: int | None, view: View | None) -> Tensor | None:
        """The rows of a batch whose ascents go on from the epoch before, or None: they start anew.

        Raises UsageError, or warns once, where they cannot go on.
        """
        wanted, penalty = self.options.warm_start, self.objective.penalty
        if wanted is False or not penalty.ascends or self.settings.lam == 0:
            return None
        if batch.rows is None or samples is None:
            reason = NOT_KNOWN
        elif self.options.augment is not None and view is None:
            reason = NOT_UNDONE
        else:
            return batch.rows
        if wanted:
            raise UsageError(f"warm_start is True, but {reason}")
        self._alarms.starts_anew(reason)
        return None

    def _failure(self, what: str) -> TrainingError:
        """Put the last good weights back, drop what is spoilt, and say what to change."""
        spoilt = (name for name, value in self._good.items() if value.isnan().any())
        if (name := next(spoilt, None)) is not None:
            return TrainingError(
                f"{what}: the network's {name!r} held NaN when training began; allowed: finite "
                "weights"
            )
        put_state(self.network, self._good)
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()  # momentum that has grown with the loss
        self.state.average = None
        return TrainingError(
            f"{what}; the classifier has been given back its last good weights. "
            f"{self._alarms.advice}"
        )

    def _measure(self, monitors: list[Monitor], bar: tqdm[Any]) -> Record:
        """Validation and training-subset metrics, on the averaged weights where there are any."""
        record: Record = {}
        with ExitStack() as stack:
            if self.state.average is not None and monitors:
                stack.enter_context(self.state.average.swapped_in(self.network))
            # No effect on the run: the same weights come out with and without validation data.
            stack.enter_context(preserved_random_state(self._device))
            stack.enter_context(progress.alive(bar, self._validated))
            for monitor in monitors:
                metrics, labels = monitor.measure(
                    self._validated,
                    self.objective.criterion,
                    self.objective.bounds_for(monitor.x),
                    self.settings,
                    self.objective.processes,
                )
                record.update(metrics)
                self._alarms.problem = (
                    collapse([(labels, monitor.y)], monitor.prefix) or self._alarms.problem
                )
        return record

    def _used(self, batches: Batches) -> Identity:
        """What draws or counts in an epoch and is the user's own; tensors in memory do not."""
        source = {} if batches.in_memory else batches.parts()
        return Identity({"augment": self.options.augment, **source}, self._description.anew())

    def _stop_where_collapsed(self, sums: EpochSums) -> None:
        """Raise TrainingError where one class is predicted for everything by what had learnt.

        What had not learnt, or has been constant since the warm-up, may still learn: that is
        warned of.
        """
        best = max((record["train_accuracy"] for record in self.state.history), default=0.0)
        found = collapse(sums.late(), "training"), has_learnt(sums.last(), best)
        problem, learnt = self.objective.processes.from_main(found)
        if self._warm and problem is not None and self._learnt is not None:
            self._good = self._learnt
            epoch = self.state.epoch + 1
            raise self._failure(f"collapse: after epoch {epoch} the network {problem}")
        self._alarms.problem, self.state.learnt = problem, learnt

    @property
    def _warm(self) -> bool:
        """Whether the epoch that ends has the full eps and lam."""
        return self.state.epoch + 1 >= self.options.warmup_epochs


def _check_goes_with(precision: str, penalty: Penalty, settings: LFRSettings) -> None:
    """Raise UsageError for what is not itself in a narrow type."""
    if precision != "float32" and not penalty.narrow:
        raise UsageError(
            f"precision is {precision!r} with penalty {type(penalty).__name__}, which loses more "
            "than a few per cent in it; allowed: 'float32'"
        )
    if precision == "fp16" and settings.estimator == "exact":
        raise UsageError(
            "precision is 'fp16' with estimator 'exact', whose second derivatives its scale does "
            "not reach; allowed: 'bf16', 'float32', or 'finite-difference'"
        )
