"""How each kind of method trains: LFR by this package, the others by ART's own trainers.

Network, optimizer and learning rate are the same for all of them; but ART's FBF trainer has a
learning rate of its own built in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.data_generators import DataGenerator
from art.defences.trainer import (
    AdversarialTrainer,
    AdversarialTrainerAWPPyTorch,
    AdversarialTrainerFBFPyTorch,
    AdversarialTrainerTRADESPyTorch,
)
from art.estimators.classification import PyTorchClassifier
from art.utils import to_categorical
from torch import nn

from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
from art_lfr.attacks.target import LogitsModule
from art_lfr.comparison.plan import Run
from art_lfr.core.arguments import Array, part_for
from art_lfr.core.imports import named_object
from art_lfr.core.keywords import TrainerKeywords
from art_lfr.core.modes import parameters_of
from art_lfr.core.names import OF_LFR, parse_norm
from art_lfr.core.randomness import preserved_random_state
from art_lfr.data import Augmentation, Compose, RandomCrop, random_flip
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.penalties import LocalFlatness, Penalty, penalty_for


def make_classifier(model: nn.Module, run: Run, x: Array, classes: int) -> PyTorchClassifier:
    """ART's classifier around a network, with the optimizer of the run."""
    s = run.settings
    return wrapped(model, x, classes, lr=s["lr"], momentum=0.9, weight_decay=s["weight_decay"])


def wrapped(
    model: nn.Module, x: Array, classes: int, *, lr: float, momentum: float, weight_decay: float
) -> PyTorchClassifier:
    """ART's classifier around a network, with SGD."""
    # As one layer: of an `nn.Sequential`, ART's TRADES would take the first layer's output.
    network: Any = LogitsModule(model, torch.float32)
    # On a CPU, convolutions with BatchNorm take a third less time so, with the same values.
    network.to(memory_format=torch.channels_last)
    return PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        x.shape[1:],
        classes,
        optimizer=torch.optim.SGD(
            network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
        ),
        clip_values=(0.0, 1.0),
    )


def one_cycle(run: Run, optimizer: torch.optim.Optimizer, images: int) -> Any:
    """The learning rate over the whole run: one cycle, a step for each optimizer step."""
    batches = math.ceil(images / run.settings["batch_size"])
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=run.settings["lr"], total_steps=run.settings["epochs"] * batches + 1
    )


def clip_gradients(run: Run, optimizer: torch.optim.Optimizer) -> None:
    """Clip the gradient's norm before each step of one of ART's trainers, as LFR's trainer can.

    ART's trainers have no such setting.
    """
    limit = run.settings.get("max_grad_norm")
    if limit is None:
        return

    def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        nn.utils.clip_grad_norm_(parameters_of(optimizer), limit)

    optimizer.register_step_pre_hook(clip)


# Steps of the attack or ascent, where a method does not say.
STEPS = 10
# (number of the first epoch, how many) -> trains them
Epochs = Callable[[int, int], None]


class Warmup:
    """The radius of one of ART's attacks rises linearly over the first batches, as LFR's eps does.

    ART's trainers have no warm-up; without it, adversarial training at a large eps can end in a
    constant network.
    """

    def __init__(self, attack: ProjectedGradientDescent, batches: float, done: int) -> None:
        self._attack, self._batches, self._done = attack, batches, done
        self._eps, self._step = attack.eps, attack.eps_step
        self._set()

    def after_batch(self) -> None:
        """The optimizer has stepped."""
        self._done += 1
        if self._done <= self._batches:
            self._set()

    def _set(self) -> None:
        part = min(1.0, (self._done + 1) / self._batches) if self._batches else 1.0
        self._attack.set_params(eps=part * self._eps, eps_step=part * self._step)


def check_method(run: Run) -> None:
    """Make the trainer of a run around a toy network: bad settings show before any training.

    Raises ValueError, naming the method.
    """
    x, y = np.zeros((2, 2), dtype=np.float32), np.arange(2)
    with preserved_random_state(torch.device("cpu")):
        network = nn.Linear(2, 2)
        try:
            classifier = make_classifier(network, run, x, 2)
            if run.settings["kind"] == "lfr":
                lfr_trainer(run, classifier)
            else:
                art_epochs(run, classifier, lambda: network, x, y)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{run.comparison.name}: method {run.method!r} has settings that do not work: "
                f"{error}"
            ) from error


def lfr_trainer(run: Run, classifier: PyTorchClassifier) -> AdversarialTrainerLFRPyTorch:
    """This package's trainer."""
    s, unit = run.settings, float(run.comparison.eps)
    eps = s.get("eps", 1.0) * unit
    penalty, steps = penalty_of(run), s.get("steps", STEPS)
    # A comparison saves no time by approximation, unless a method says so.
    earlier = {"renew_every": 1, "held_epochs": 0.0, "max_grad_norm": None, "warm_start": False}
    keywords = {**earlier, **part_for(s, TrainerKeywords)}
    if "warmup" in s:
        keywords["warmup_epochs"] = s["warmup"]
    # lam is a multiple of eps for a gradient norm; other penalties have other units.
    for name in ("lam", "radius") if isinstance(penalty, LocalFlatness) else ("radius",):
        if s.get(name) is not None:
            keywords[name] = s[name] * unit
    return AdversarialTrainerLFRPyTorch(
        classifier,
        norm=parse_norm(run.comparison.norm),
        eps=eps,
        max_iter=steps,
        eps_step=s.get("step", 2.0) * eps / max(1, steps) or None,
        penalty=penalty,
        # The clean loss on PGD examples: adversarial training with the penalty on top.
        attack=_attack(run, classifier, s["attack_steps"]) if "attack_steps" in s else None,
        augment=_augmentation(s),
        seed=run.seed,
        verbose=False,
        **keywords,
    )


def _augmentation(settings: Mapping[str, Any]) -> Augmentation | None:
    """Crops of images with so many pixels of border, flips, both in this order, or None."""
    flip = random_flip if settings["flip"] else None
    if "crop" not in settings:
        return flip
    crop = RandomCrop(settings["crop"])
    return crop if flip is None else Compose(crop, flip)


def penalty_of(run: Run) -> Penalty:
    """A built-in penalty, or the one that `module:attribute` names.

    Raises ValueError or TypeError where there is none of that name, or not with these settings.
    """
    s = run.settings
    name = s.get("penalty", "lfr")
    if ":" not in str(name):
        # A plan sets these for all its methods.
        return penalty_for(name, {key: s[key] for key in s.keys() - set(OF_LFR)})
    try:
        penalty = named_object(name)
    except ValueError as error:
        raise UsageError(f"penalty of {run.method!r} is {error}") from error
    if not isinstance(penalty, Penalty):
        raise WrongTypeError(
            f"penalty of {run.method!r} is {name!r}, a {type(penalty).__name__}; allowed: an "
            "art_lfr.penalties.Penalty"
        )
    return penalty_for(penalty, s)


def art_epochs(
    run: Run, classifier: PyTorchClassifier, make: Callable[[], nn.Module], x: Array, y: Array
) -> tuple[Epochs, ProjectedGradientDescent]:
    """A function that trains epochs with one of ART's trainers (or its plain `fit`).

    And the attack that the trainer uses, unless it is `fit` or FBF.
    """
    s, kind, attack = run.settings, run.settings["kind"], _attack(run, classifier)
    y = to_categorical(y, classifier.nb_classes)  # ART's FBF trainer needs them
    trainer: Any = classifier
    if kind == "pgd":
        trainer = AdversarialTrainer(classifier, attack, ratio=s.get("ratio", 1.0))
    elif kind == "trades":
        trainer = AdversarialTrainerTRADESPyTorch(classifier, attack, beta=s.get("beta", 6.0))
    elif kind == "awp":
        # As its authors: a step of 0.01 without momentum, of which only the direction counts.
        classes = classifier.nb_classes
        proxy = wrapped(make(), x, classes, lr=0.01, momentum=0.0, weight_decay=0.0)
        trainer = AdversarialTrainerAWPPyTorch(
            classifier, proxy, attack, mode="PGD", gamma=s.get("gamma", 0.01), beta=1.0, warmup=0
        )
    elif kind == "fbf":
        trainer = AdversarialTrainerFBFPyTorch(
            classifier, eps=s.get("eps", 1.0) * run.comparison.eps
        )
    keywords = {"verbose": False} if kind == "standard" else {}

    def epochs(first: int, count: int) -> None:
        if s["flip"]:
            # Each epoch has a generator of its own, so that a resumed run needs no state of it.
            batches = FlippedBatches(x, y, s["batch_size"], 1_000_003 * run.seed + first)
            trainer.fit_generator(batches, nb_epochs=count, **keywords)
        else:
            trainer.fit(x, y, batch_size=s["batch_size"], nb_epochs=count, **keywords)

    return epochs, attack


def _attack(
    run: Run, classifier: PyTorchClassifier, steps: int | None = None
) -> ProjectedGradientDescent:
    """ART's PGD from a random start."""
    s, norm = run.settings, parse_norm(run.comparison.norm)
    eps, steps = s.get("eps", 1.0) * run.comparison.eps, steps or s.get("steps", STEPS)
    return ProjectedGradientDescent(
        classifier,
        norm=norm if norm == math.inf else int(norm),
        eps=eps,
        eps_step=s.get("step", 2.5) * eps / steps,
        max_iter=steps,
        num_random_init=1,
        batch_size=s["batch_size"],
        verbose=False,
    )


class FlippedBatches(DataGenerator):  # type: ignore[misc]
    """Shuffled batches of randomly mirrored images, from a generator of its own."""

    def __init__(self, x: Array, y: Array, batch_size: int, seed: int) -> None:
        # Whole batches: ART's plain `fit_generator` would leave out a last, smaller one.
        super().__init__(size=-(-len(x) // batch_size) * batch_size, batch_size=batch_size)
        self._x, self._y = torch.from_numpy(x), y
        self._generator = torch.Generator().manual_seed(seed)
        self._order = np.empty(0, dtype=np.int64)

    def get_batch(self) -> tuple[Array, Array]:
        """The next batch; after the last one of an epoch the images are shuffled anew."""
        if len(self._order) == 0:
            self._order = torch.randperm(len(self._x), generator=self._generator).numpy()
        chosen, self._order = (self._order[: self.batch_size], self._order[self.batch_size :])
        return random_flip(self._x[chosen], self._generator).numpy(), self._y[chosen]
