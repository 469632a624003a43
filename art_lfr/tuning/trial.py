"""One setting trained and judged on reserved images, and the finished trials on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
from art_lfr.attacks.target import make_target, preserved
from art_lfr.core.arguments import Array, check_integer
from art_lfr.core.modes import default_device
from art_lfr.core.progress import passes_of
from art_lfr.core.randomness import preserved_random_state, seed_global_generators
from art_lfr.core.samples import as_tensor, check_inputs, class_labels, to_array
from art_lfr.data import Augmentation
from art_lfr.errors import TrainingError, UsageError, WrongTypeError
from art_lfr.evaluation.resolve import resolve_attacks
from art_lfr.evaluation.run import evaluate
from art_lfr.penalties import Penalty
from art_lfr.storage.description import Description, Network, array
from art_lfr.storage.identity import Identity
from art_lfr.storage.records import digest, pack, read_record, unpack, write_record
from art_lfr.training.averaging import same_state, tensors_of
from art_lfr.tuning.results import Candidate, Trial

MOST = 1000
JUDGED_AT_ONCE = 256
FORMAT = 3
TUNING = "tuning.json"
# The arrays of a trial that are kept as masks.
MASKS = ("clean", "robust")


class Data(NamedTuple):
    """What is trained on (`x`, `y`), and what is judged on (`x_reserved`, `y_reserved`)."""

    x: Array
    y: Array
    x_reserved: Array
    y_reserved: Array


def usual_count(images: int) -> int:
    """How many training images are reserved by default: a fifth, at most 1,000."""
    return max(1, min(MOST, images // 5))


def split(x: Array, y: Array, held_out: int | tuple[Array, Array] | None) -> Data:
    """Reserve the last `held_out` images of (x, y), or take a validation set as it is.

    Raises ValueError where no image is left to train on, and where the reserved labels show that
    the data is sorted by label.
    """
    x, y = _arrays("x", x, "y", y)
    if isinstance(held_out, tuple | list):
        if len(held_out) != 2:
            raise WrongTypeError(
                f"held_out has {len(held_out)} parts; allowed: (x, y), or a number"
            )
        data = Data(x, y, *_arrays("held_out", held_out[0], "held_out", held_out[1]))
    else:
        count = usual_count(len(x)) if held_out is None else held_out
        check_integer("held_out", count, low=1)
        if count >= len(x):
            raise UsageError(
                f"held_out is {count} of {len(x)} images; allowed: at most {len(x) - 1}, or (x, y)"
            )
        first = len(x) - count
        data = Data(x[:first], y[:first], x[first:], y[first:])
    trained, reserved = (set(np.unique(y)) for y in (data.y, data.y_reserved))
    sorted_by_label = len(reserved) == 1 < len(trained) and len(data.y_reserved) >= 10
    if sorted_by_label or not reserved <= trained:
        raise UsageError(
            f"held_out has images of {len(reserved)} class(es), the training images of "
            f"{len(trained)}: is y sorted? Allowed: data in random order, with every held-out "
            "class trained on"
        )
    return data


def _arrays(x_name: str, x: object, y_name: str, y: object) -> tuple[Array, Array]:
    """Checked samples, and as many index labels."""
    samples = as_tensor(x_name, x)
    check_inputs(x_name, samples)
    return to_array(x_name, samples), class_labels(y_name, y, len(samples)).numpy()


def largest_class(y: Array) -> float:
    """The share of the most frequent label: the accuracy of always giving that one."""
    return float(np.unique(y, return_counts=True)[1].max() / len(y))


class TunedKeywords(TypedDict, total=False):
    """The trainer's keywords that `tune` passes on.

    Not what it decides, what belongs to one classifier or one run, and what needs other images.
    """

    estimator: str
    batch_norm: str
    renew_every: int
    autocast: bool
    warm_start: bool | None
    warmup_epochs: float
    held_epochs: float | None
    max_grad_norm: float | None
    weight_perturbation: float | None
    max_physical_batch_size: int | None
    ema_decay: float | None
    augment: Augmentation | None
    penalty: str | Penalty
    verbose: bool


@dataclass(frozen=True)
class Conditions:
    """All that shapes a trial, but for its candidate; checked by `identity`."""

    make_classifier: Callable[[], Any]
    data: Data
    eps: float
    p: float
    epochs: int
    batch_size: int
    max_iter: int
    make_scheduler: Callable[[Any, int], Any] | None
    attacks: tuple[str, ...]
    seed: int
    trainer: TunedKeywords

    @property
    def settings(self) -> dict[str, Any]:
        """What a reader of the result has to know, as JSON types."""
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "attacks": list(self.attacks),
            "train": len(self.data.x),
            "largest_class": largest_class(self.data.y_reserved),
            **{k: _shown(value) for k, value in self.trainer.items() if k != "verbose"},
        }

    @cached_property
    def identity(self) -> Identity:
        """That of the tuning. Raises ValueError or TypeError for bad settings or data."""
        adapter = self._first
        self._trainer(adapter.classifier, {})
        scheduler = self._scheduler(adapter.optimizer)
        x, y = adapter.tensors(self.data.x, self.data.y)
        x_reserved, y_reserved = adapter.tensors(
            self.data.x_reserved, self.data.y_reserved, " of held_out"
        )
        target = make_target(
            adapter.classifier,
            self.data.x_reserved,
            self.data.y_reserved,
            eps=self.eps,
            norm=self.p,
            batch_size=JUDGED_AT_ONCE,
            seed=self.seed,
        )
        with preserved(target.module, target.device):
            resolved = resolve_attacks(self.attacks, target)
        if not any(attack.threat == target.threat and attack.images is None for attack in resolved):
            raise UsageError(
                f"attacks is {list(self.attacks)}, none of which attacks all images within eps; "
                "allowed: at least one that does, such as 'APGD-CE'"
            )
        classifier = adapter.classifier
        self._equal_to_first()
        return Identity(
            {
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "seed": self.seed,
                "eps": self.eps,
                "p": self.p,
                "max_iter": self.max_iter,
                "trainer": {k: v for k, v in self.trainer.items() if k != "verbose"},
                "network": Network(adapter.network),
                **adapter.parts(),
                "optimizer": adapter.optimizer,
                "scheduler": scheduler,
                "attacks": [attack.parameters for attack in resolved],
            },
            Description(
                {
                    "network": adapter.network,
                    "module": target.module,
                    "classifier": classifier,
                }
            ),
            plain={
                "x": array(x),
                "y": array(y),
                "x of held_out": array(x_reserved),
                "y of held_out": array(y_reserved),
            },
        )

    @cached_property
    def _first(self) -> ClassifierAdapter:
        """A classifier that stays as it was made."""
        return self._fresh()

    def attempt(self, candidate: Candidate) -> tuple[Array, Array, str]:
        """Train and judge: which reserved images are right when clean, and in the worst case.

        The third value says why a training failed; then no image is right. Raises ValueError where
        the classifier differs from the first one.
        """
        classifier = self._equal_to_first().classifier
        trainer = self._trainer(classifier, candidate.lengths(self.eps, self.max_iter))
        try:
            trainer.fit(
                self.data.x,
                self.data.y,
                batch_size=self.batch_size,
                nb_epochs=self.epochs,
                scheduler=self._scheduler(classifier.optimizer),
                scheduler_interval="batch",
            )
        except TrainingError as error:
            nothing = np.zeros(len(self.data.x_reserved), dtype=bool)
            return nothing, nothing, str(error)
        shown = self.trainer.get("verbose", False)
        with passes_of(classifier.model, "attacks on reserved images", shown=shown):
            evaluation = evaluate(
                classifier,
                self.data.x_reserved,
                self.data.y_reserved,
                eps=self.eps,
                norm=self.p,
                attacks=list(self.attacks),
                batch_size=JUDGED_AT_ONCE,
                seed=self.seed,
                flatness_steps=0,
            )
        return evaluation.correct["clean"], evaluation.correct["worst case"], ""

    def _fresh(self) -> ClassifierAdapter:
        """A new classifier, drawn from seeded generators; the global states are left as found."""
        with preserved_random_state(default_device()):
            seed_global_generators(self.seed)
            adapter = ClassifierAdapter(self.make_classifier(), "what make_classifier returns")
        adapter.check_optimizer()
        return adapter

    def _equal_to_first(self) -> ClassifierAdapter:
        first, adapter = self._first, self._fresh()
        if adapter.network is first.network or not same_state(
            adapter.network, tensors_of(first.network)
        ):
            raise UsageError(
                "make_classifier gives the same network again, or other weights; allowed: a new "
                "network at each call, with the same first weights"
            )
        return adapter

    def _trainer(
        self, classifier: Any, lengths: Mapping[str, float]
    ) -> AdversarialTrainerLFRPyTorch:
        keywords: dict[str, Any] = {"verbose": False, **self.trainer, **lengths}
        return AdversarialTrainerLFRPyTorch(
            classifier,
            norm=self.p,
            eps=self.eps,
            max_iter=self.max_iter,
            seed=self.seed,
            **keywords,
        )

    def _scheduler(self, optimizer: Any) -> Any:
        if self.make_scheduler is None:
            return None
        return self.make_scheduler(
            optimizer, self.epochs * math.ceil(len(self.data.x) / self.batch_size)
        )


def _shown(value: object) -> object:
    """A keyword of the trainer as a reader of the result sees it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    name = getattr(value, "__qualname__", None)
    return repr(value) if name is None else f"{getattr(value, '__module__', '')}.{name}"


class TrialStore:
    """`tuning.json`, which says whose directory it is, and one file for each finished trial.

    The directory is there, and locked; None keeps nothing. Raises ValueError for that of another
    tuning, naming the differences.
    """

    def __init__(self, directory: Path | None, identity: Identity) -> None:
        self.directory = directory
        if self.directory is None:
            return
        path = self.directory / TUNING
        if path.exists():
            where = f"the tuning in {str(self.directory)!r}"
            identity.check(read_record(path), where, "a new state_dir, or what that tuning has")
        else:
            write_record(path, identity.parts)

    def _path(self, candidate: Candidate) -> Path:
        assert self.directory is not None
        return self.directory / f"trial-{digest([FORMAT, vars(candidate)])[:16]}.json"

    def load(self, candidate: Candidate) -> Trial | None:
        """The trial as it finished before, or None; ValueError for a damaged file."""
        if self.directory is None or not (path := self._path(candidate)).exists():
            return None
        saved = read_record(path)
        clean, robust = (unpack(saved[name], saved["images"]).numpy() for name in MASKS)
        return Trial(candidate, clean, robust, saved["seconds"], saved["problem"])

    def save(self, trial: Trial) -> None:
        """Write the trial atomically."""
        if self.directory is not None:
            content = {
                "candidate": vars(trial.candidate),
                "images": len(trial.clean),
                **{name: pack(torch.from_numpy(getattr(trial, name))) for name in MASKS},
                "seconds": trial.seconds,
                "problem": trial.problem,
            }
            write_record(self._path(trial.candidate), content)
