"""Attacks of any library in one form, and the one place where they are run and checked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from art_lfr.attacks.target import Target, ThreatModel, UnitBox, missing_gradient_named, untouched
from art_lfr.core.geometry import Box
from art_lfr.core.progress import passes_of
from art_lfr.core.randomness import seed_global_generators
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.storage.description import attacks_inside


class Attacked(NamedTuple):
    """Adversarial examples, shape of x, and what else an attack has to tell (JSON types)."""

    adversarial: Tensor
    details: dict[str, Any]


# (raw inputs, index labels), both on the CPU -> adversarial examples of the same shape
Attack: TypeAlias = Callable[[Tensor, Tensor], "Tensor | Attacked"]


@dataclass(frozen=True)
class NamedAttack:
    """An attack as the runner takes it.

    Attributes:
        name: Name of its row.
        run: The attack.
        threat: Which of its examples count.
        minimal: It seeks the closest example: one outside `threat` is a sample that stands. An
            example of any other attack outside `threat` is an error in its settings.
        images: It runs on this many images, the first ones; None: on all.
        black_box: It uses no gradients.
        transferred: It attacks another model than the one judged, which gets its examples.
        passes: Forward passes that a batch takes at most, where known; 0: it shows its progress
            itself.
        dealt: Several processes call it, and deal its batches among them. Any other is called by
            the main one alone: an object or a function may keep something from batch to batch.
        notes: What a reader of its row has to know.
        parameters: What tells it from another of the same name, for resuming; an attack object
            tells all that it holds.
    """

    name: str
    run: Attack
    threat: ThreatModel
    minimal: bool = False
    images: int | None = None
    black_box: bool = False
    transferred: bool = False
    passes: int | None = None
    dealt: bool = False
    notes: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackSpec:
    """An attack of a user's with a threat model of its own, or on fewer images.

    Attributes:
        attack: A name, an attack object of ART, torchattacks or foolbox, or a function
            (model, x, y) -> adversarial.
        eps: Radius in which its examples count, raw units (norm 0: number of changed values).
        norm: np.inf, 2, 1 or 0; None: that of the evaluation.
        images: Run it on this many images, the first ones; None: on all.
    """

    attack: object
    eps: float | None = None
    norm: float | str | None = None
    images: int | None = None


def art_attack(attack: Any, target: Target) -> Callable[[Tensor, Tensor], Tensor]:
    """An ART evasion attack as a callable on tensors."""
    from art.attacks.evasion import AutoAttack, SaliencyMapMethod

    if getattr(attack, "targeted", False) is True and not isinstance(attack, AutoAttack):
        raise UsageError(
            f"attacks has a {type(attack).__name__} with targeted True; allowed: untargeted "
            "attacks, as the labels given are the true ones"
        )

    def generate(x: Tensor, y: Tensor) -> Tensor:
        one_hot = np.eye(target.classes, dtype=np.float32)[y.numpy()]
        # ART's JSMA takes labels as targets: with the true ones it would do nothing. Without labels
        # it draws wrong ones.
        labels = None if isinstance(attack, SaliencyMapMethod) else one_hot
        # ART's AutoAttack and torchattacks change the attacks that they are made of: the same
        # object would not be known again.
        with preserved_attributes(attacks_inside(attack)):
            # A copy: ART may write to it.
            return torch.as_tensor(attack.generate(x=x.numpy().copy(), y=labels))

    return generate


def dealt_attack(
    run: Callable[[Tensor, Tensor], Tensor],
    target: Target,
    skip: Callable[[int], object] = lambda size: None,
) -> Attack:
    """An attack that is run batch by batch, each by one of the target's processes.

    `skip` draws from the global generators what the attack draws for a batch of that size.
    """

    def attack(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat(
            target.dealt(
                len(x),
                lambda rows: run(x[rows], y[rows]),
                lambda rows: skip(rows.stop - rows.start),
            )
        )

    return attack


def function_attack(
    function: Callable[..., Any], target: Target, unit_box: UnitBox | None
) -> Attack:
    """A function (model, inputs, labels) -> adversarial inputs as a callable on raw tensors.

    Raw inputs and the judged model; or, with a `unit_box`, images in [0, 1] and a model of them.
    """
    raw = target.module
    module = raw if unit_box is None else unit_box.module(raw)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        examples = []
        with untouched(module, target.device):
            for start in range(0, len(x), target.batch_size):
                rows = slice(start, start + target.batch_size)
                batch, labels = x[rows].to(target.device), y[rows].to(target.device)
                inputs = batch.clone() if unit_box is None else unit_box.to_unit(batch)
                found = function(module, inputs, labels)
                if not isinstance(found, Tensor | np.ndarray):
                    raise WrongTypeError(
                        f"attacks has a function that returns a {type(found).__name__}; allowed: "
                        "a tensor of adversarial inputs, the shape of x"
                    )
                found = torch.as_tensor(found).detach().to(batch)
                if unit_box is not None and found.shape == batch.shape:
                    found = unit_box.to_example(found, batch, raw, target.ball.box)
                examples.append(found.cpu())
        return torch.cat(examples)

    return attack


@contextmanager
def preserved_attributes(objects: Iterable[object]) -> Iterator[None]:
    """Objects have the attributes and values afterwards that they had before."""
    attributes = [(item, dict(vars(item))) for item in objects]
    try:
        yield
    finally:
        for item, before in attributes:
            vars(item).clear()
            vars(item).update(before)


@dataclass(frozen=True)
class AttackResult:
    """What an attack did to the first n images.

    `correct` (n,) says which are still classified correctly; `adversarial` (n, ...) are its
    examples, x itself where none was sought; `distance` (n,) their distances where the model is
    wrong there, infinite elsewhere, NaN for errors without an attack.
    """

    correct: Tensor
    adversarial: Tensor
    distance: Tensor
    seconds: float
    details: dict[str, Any]


def run_attack(attack: NamedAttack, target: Target, clean: Tensor) -> AttackResult:
    """Attack the samples that are correct without an attack (`clean`, shape (N,)).

    All processes of the target call this, and get the same result.

    Raises RuntimeError for examples of the wrong shape, not finite, outside the box, or, unless
    the attack is minimal, outside its threat model: counting them would overstate the attack.
    """
    clean = clean[: attack.images]
    x = target.x[: len(clean)]
    survived, adversarial = clean.clone(), x.clone()
    distance = torch.full((len(x),), float("nan"), dtype=torch.float64)
    details: dict[str, Any] = {}
    seed_global_generators(target.seed)
    start = time.perf_counter()
    if bool(clean.any()):
        labels = target.y[: len(clean)][clean]
        batches = math.ceil(len(labels) / target.batch_size)
        shown = passes_of(
            target.module,
            f"{attack.name}, {len(labels)} images",
            shown=target.progress and attack.passes != 0,
            total=None if attack.passes is None else attack.passes * batches,
        )

        def attacked() -> Tensor | Attacked:
            return attack.run(x[clean], labels)

        with missing_gradient_named(f"attacks has {attack.name!r}, which"), shown:
            result = attacked() if attack.dealt else target.processes.by_main(attacked)
        examples, details = result if isinstance(result, Attacked) else (result, {})
        examples = examples.to(x.dtype)
        check_feasible(attack, examples, x[clean], target.ball.box)
        wrong = ~target.correct(examples, labels)
        survived[clean] = ~(wrong & attack.threat.contains(examples, x[clean]))
        adversarial[clean] = examples
        distances = attack.threat.distance(examples, x[clean])
        distance[clean] = distances.masked_fill(~wrong, float("inf"))
    return AttackResult(survived, adversarial, distance, time.perf_counter() - start, details)


def check_feasible(attack: NamedAttack, adversarial: Tensor, x: Tensor, box: Box) -> None:
    """Raise RuntimeError unless every example is one that the attack may return."""
    who = f"attack {attack.name!r} returned"
    if adversarial.shape != x.shape:
        raise RuntimeError(
            f"{who} shape {tuple(adversarial.shape)} for inputs of shape {tuple(x.shape)}"
        )
    if not bool(adversarial.isfinite().all()):
        raise RuntimeError(f"{who} NaN or infinite values")
    threat = attack.threat
    if not attack.minimal and not bool(threat.contains(adversarial, x).all()):
        farthest = float(threat.distance(adversarial, x).max())
        raise RuntimeError(
            f"{who} an example at distance {farthest:g} (norm {threat.p:g}); allowed: at most "
            f"eps, {threat.eps:g} (is the attack's own eps or norm another?)"
        )
    if not box.contains(adversarial):
        raise RuntimeError(
            f"{who} values from {float(adversarial.min()):g} to {float(adversarial.max()):g}, "
            "outside the valid box"
        )
