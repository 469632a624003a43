"""One setting trained and judged, under conditions that all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from art_lfr import __version__
from art_lfr.classifier import ClassifierAdapter
from art_lfr.evaluation.attacks import resolve_attacks
from art_lfr.evaluation.run import evaluate
from art_lfr.fingerprint import fingerprint
from art_lfr.randomness import preserved_random_state, seed_global_generators
from art_lfr.target import make_target, unharmed
from art_lfr.trainer import AdversarialTrainerLFRPyTorch
from art_lfr.training import TrainingError
from art_lfr.tuning.candidates import Candidate
from art_lfr.tuning.held_out import Data
from art_lfr.tuning.results import Array

# What tuning decides, what it has under names of its own, and what belongs to one classifier.
TAKEN = ("lam", "radius", "eps_step", "penalty", "attack", "classifier")
JUDGED_AT_ONCE = 256


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
    trainer: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """What a reader of the result has to know, as JSON types."""
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "attacks": list(self.attacks),
            "train": len(self.data.x),
            **{name: _named(value) for name, value in self.trainer.items()},
        }

    @cached_property
    def identity(self) -> str:
        """A hash of weights, data and settings. Raises ValueError or TypeError for bad ones."""
        for name in TAKEN:
            if name in self.trainer:
                raise TypeError(f"tune() got the keyword {name!r}; allowed: any but {TAKEN}")
        adapter = self._fresh()
        self._trainer(adapter.classifier, {})
        scheduler = self._scheduler(adapter.optimizer)
        x, y = adapter.tensors(self.data.x, self.data.y)
        x_held, y_held = adapter.tensors(self.data.x_held, self.data.y_held, " of held_out")
        target = make_target(
            adapter.classifier,
            self.data.x_held,
            self.data.y_held,
            eps=self.eps,
            p=self.p,
            bounds=None,
            batch_size=JUDGED_AT_ONCE,
            seed=self.seed,
        )
        with unharmed(target.module, target.device):
            resolve_attacks(self.attacks, target)
        classifier = adapter.classifier
        groups = [
            {name: value for name, value in group.items() if name != "params"}
            for group in adapter.optimizer.param_groups
        ]
        shaped_by = {
            **self.settings,
            "version": __version__,
            "eps": self.eps,
            "p": self.p,
            "max_iter": self.max_iter,
            "network": repr(adapter.network),
            "loss": repr(classifier.loss),
            "optimizer": [_named(adapter.optimizer), groups],
            "scheduler": _state(scheduler),
            "bounds": np.asarray(classifier.clip_values, dtype=object).tolist(),
            "preprocessing": [_named(defence) for defence in classifier.preprocessing_operations],
        }
        tensors = {"x": x, "y": y, "x_held": x_held, "y_held": y_held}
        return fingerprint(adapter.module, tensors, shaped_by)

    @cached_property
    def _first_weights(self) -> str:
        return fingerprint(self._fresh().module, {}, {})

    def attempt(self, candidate: Candidate) -> tuple[Array, Array, str]:
        """Train and judge: which held-out images are right clean, which in the worst case.

        The third value says why a training failed; nothing is right then. Raises ValueError where
        the classifier is another than before the first trial.
        """
        expected, adapter = self._first_weights, self._fresh()
        if fingerprint(adapter.module, {}, {}) != expected:
            raise ValueError(
                "make_classifier gave other weights than before; allowed: a new network at each "
                "call, with the same first weights"
            )
        classifier = adapter.classifier
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
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with preserved_random_state(device):
            seed_global_generators(self.seed)
            adapter = ClassifierAdapter(self.make_classifier(), "what make_classifier returns")
        adapter.check_optimizer()
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


def _named(value: Any) -> Any:
    """JSON types as they are, a function by its name, other objects by their class."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_named(item) for item in value]
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _state(scheduler: Any) -> Any:
    """The class of a scheduler and the plain values of its state."""
    if scheduler is None:
        return None
    state = getattr(scheduler, "state_dict", dict)()
    return [_named(scheduler), {name: _named(value) for name, value in state.items()}]
