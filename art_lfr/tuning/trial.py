"""One setting trained and judged, under conditions that all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np

from art_lfr import __version__
from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
from art_lfr.attacks.target import make_target, preserved
from art_lfr.core.arguments import Array
from art_lfr.core.modes import default_device
from art_lfr.core.randomness import preserved_random_state, seed_global_generators
from art_lfr.data import Augmentation
from art_lfr.errors import TrainingError, UsageError
from art_lfr.evaluation.resolve import resolve_attacks
from art_lfr.evaluation.run import evaluate
from art_lfr.penalties import Penalty
from art_lfr.storage.fingerprint import described, fingerprint
from art_lfr.tuning.candidates import Candidate
from art_lfr.tuning.held_out import Data, largest_class

JUDGED_AT_ONCE = 256


class TunedKeywords(TypedDict, total=False):
    """The trainer's keywords that `tune` passes on.

    Not what it decides, what belongs to one classifier or one run, and what needs other images.
    """

    estimator: str
    batch_norm: str
    renew_every: int | None
    autocast: bool
    warm_start: bool
    warmup_epochs: float
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
            "largest_class": largest_class(self.data.y_held),
            **{name: described(value) for name, value in self.trainer.items()},
        }

    @cached_property
    def identity(self) -> str:
        """A hash of weights, data and settings. Raises ValueError or TypeError for bad ones."""
        adapter = self._first
        self._trainer(adapter.classifier, {})
        scheduler = self._scheduler(adapter.optimizer)
        x, y = adapter.tensors(self.data.x, self.data.y)
        x_held, y_held = adapter.tensors(self.data.x_held, self.data.y_held, " of held_out")
        target = make_target(
            adapter.classifier,
            self.data.x_held,
            self.data.y_held,
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
        shaped_by = {
            **self.settings,
            "version": __version__,
            "eps": self.eps,
            "p": self.p,
            "max_iter": self.max_iter,
            "loss": repr(classifier.loss),
            "optimizer": [
                described(adapter.optimizer),
                # The scheduler may have set its first rate already.
                [_plain(group) for group in adapter.optimizer.param_groups],
            ],
            "scheduler": _state(scheduler),
            "bounds": described(classifier.clip_values),
        }
        tensors = {"x": x, "y": y, "x_held": x_held, "y_held": y_held}
        return fingerprint(adapter.module, tensors, shaped_by)

    @cached_property
    def _first(self) -> ClassifierAdapter:
        """A classifier that stays as it was made."""
        return self._fresh()

    def attempt(self, candidate: Candidate) -> tuple[Array, Array, str]:
        """Train and judge: which held-out images are right clean, which in the worst case.

        The third value says why a training failed; nothing is right then. Raises ValueError where
        the classifier is another than before the first trial.
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
            nothing = np.zeros(len(self.data.x_held), dtype=bool)
            return nothing, nothing, str(error)
        found = evaluate(
            classifier,
            self.data.x_held,
            self.data.y_held,
            eps=self.eps,
            norm=self.p,
            attacks=list(self.attacks),
            batch_size=JUDGED_AT_ONCE,
            seed=self.seed,
            flatness_steps=0,
        )
        return found.correct["clean"], found.correct["worst case"], ""

    def _fresh(self) -> ClassifierAdapter:
        """A new classifier, drawn from seeded generators; the global states are left as found."""
        with preserved_random_state(default_device()):
            seed_global_generators(self.seed)
            adapter = ClassifierAdapter(self.make_classifier(), "what make_classifier returns")
        adapter.check_optimizer()
        return adapter

    def _equal_to_first(self) -> ClassifierAdapter:
        first, adapter = self._first, self._fresh()
        weights = [fingerprint(a.module, {}, {}) for a in (first, adapter)]
        if adapter.network is first.network or weights[0] != weights[1]:
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


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are themselves, without parameters and private objects."""
    kinds = (bool, int, float, str, tuple, list, np.ndarray, np.generic)
    return {k: described(v) for k, v in state.items() if isinstance(v, kinds) and k != "params"}


def _state(scheduler: Any) -> Any:
    """The class of a scheduler and the plain values of its state."""
    return scheduler and [described(scheduler), _plain(getattr(scheduler, "state_dict", dict)())]
