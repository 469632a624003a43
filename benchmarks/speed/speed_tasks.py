"""What speed.py times: passes, steps and whole iterations of one network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from published import published_iteration
from torch import nn

from art_lfr.core.criterion import Criterion
from art_lfr.core.flatness import find_least_flat_point
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.gradients import input_gradient
from art_lfr.core.modes import frozen, mode
from art_lfr.core.pgd import projected_gradient_descent
from art_lfr.core.precision import NarrowModel
from art_lfr.core.settings import LFRSettings
from art_lfr.models import BUILT_IN
from art_lfr.penalties import PENALTIES
from art_lfr.training.step import Objective
from art_lfr.training.warm_start import EndPoints

SHAPES = {
    "paper-cnn": (128, 1, 28, 28),
    "resnet-20": (128, 3, 32, 32),
    "preact-resnet-18": (128, 3, 32, 32),
    "vit-tiny": (16, 3, 224, 224),
}
EPS, STEPS = 0.1, 10
# Those of the trainer, whose ascent goes on from epoch to epoch.
FEW = 2
Task: TypeAlias = Callable[[], object]
Key = TypeVar("Key")


def make_network(name: str, *, twice: bool = False) -> nn.Module:
    """A built-in network, or timm's ViT-Tiny.

    `twice`: It will be differentiated twice, for which torch has no fused attention.
    """
    if name != "vit-tiny":
        return BUILT_IN[name](0)
    import timm

    torch.manual_seed(0)
    network: nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = not twice
    return network


def seconds_of(
    tasks: Mapping[Key, Task], rounds: int, wait: Callable[[], object] = lambda: None
) -> Iterator[dict[Key, list[float]]]:
    """The seconds of each task so far, after each of the rounds, in which one follows the other.

    `wait` returns when a device has done what it was told.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in tasks}
    for _ in range(rounds):
        for key, task in tasks.items():
            wait()
            began = time.perf_counter()
            task()
            wait()
            seconds[key].append(time.perf_counter() - began)
        yield seconds


def makers_of(
    name: str,
    batch: int | None = None,
    steps: int = STEPS,
    *,
    device: str = "cpu",
    bfloat16: bool = False,
    compiled: bool = False,
) -> dict[str, Callable[[], Task]]:
    """What makes each task, by its name in the table; the first is the unit.

    `batch` images instead of the network's usual number; K = `steps`. Nothing is built or run
    before a task is made, so that a process that makes one has the memory of that one alone. With
    `bfloat16` all layers but the first are in it, in every pass. Without ART, its rows are left
    out.
    """
    draw = np.random.default_rng(0)
    images = draw.random((batch or SHAPES[name][0], *SHAPES[name][1:]), dtype=np.float32)
    labels = np.arange(len(images)) % 10
    x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    box, criterion, generator = Box.from_bounds((0.0, 1.0), x), Criterion(), torch.Generator()
    ball = Ball(EPS, float("inf"), box)

    def trained(
        *, channels_last: bool = True, twice: bool = False
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        # As the trainer has these on a CPU by itself; what is not of this package also as it comes.
        network = make_network(name, twice=twice).to(device)
        if channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
        return torch.compile(network) if compiled else network, optimizer

    def narrow(network: nn.Module) -> NarrowModel:
        model = NarrowModel(network, torch.bfloat16)
        model.first_layer = ExitStack()  # for as long as the task lives
        model.first_layer.enter_context(model.first_layer_in_full())
        return model

    def forward() -> Task:
        network, _ = trained()

        def run() -> None:
            with torch.no_grad(), mode(network, training=False):
                network(x)

        return run

    def pgd_step() -> Task:
        network, _ = trained()

        def run() -> None:
            with mode(network, training=False), frozen(network):
                gradient = input_gradient(network, criterion, x, y)
                ball.ascend(x, gradient, x, 0.01)

        return run

    def trained_by(settings: LFRSettings) -> tuple[nn.Module, torch.optim.Optimizer]:
        return trained(twice=settings.estimator == "exact")

    def ascent(settings: LFRSettings) -> Task:
        network, _ = trained_by(settings)
        return lambda: find_least_flat_point(
            network, criterion, x, y, ball=ball, settings=settings, start=x
        )

    def published(**layout: bool) -> Task:
        own, optimizer = trained(twice=True, **layout)
        own = narrow(own) if bfloat16 else own
        return lambda: published_iteration(
            own, optimizer, x, y, eps=EPS, steps=steps, step_size=0.02, lam=EPS / 2
        )

    def outer_step(settings: LFRSettings) -> Task:
        own, optimizer = trained_by(settings)
        objective = Objective(own, criterion, lambda like: box)
        parts = list(objective._parts(x, y, settings, generator, len(x), None))
        own.train()
        return lambda: objective._back_propagate(parts, optimizer)

    def iteration(
        settings: LFRSettings, penalty: str = "lfr", *, warm: bool = False, bf16: bool = bfloat16
    ) -> Task:
        own, optimizer = trained_by(settings)
        own = narrow(own).train() if bf16 else own.train()
        objective = Objective(own, criterion, lambda like: box, penalty=PENALTIES[penalty])
        store, rows = EndPoints(), torch.arange(len(x), device=device)

        def run() -> None:
            result = objective.step(
                x,
                y,
                optimizer=optimizer,
                settings=settings,
                generator=generator,
                max_grad_norm=1.0,
                ends=store.of(rows, x, len(x), None) if warm else None,
            )
            if result.ends is not None:
                store.keep(rows, x, result.ends, None)

        return run

    def plain_adversarial_training(**layout: bool) -> Task:
        own, optimizer = trained(**layout)
        own = narrow(own).train() if bfloat16 else own.train()

        def step() -> None:
            point = projected_gradient_descent(
                own,
                criterion,
                x,
                y,
                ball=ball,
                steps=steps,
                step_size=0.02,
                start=ball.random_point(x, generator),
            )
            optimizer.zero_grad()
            nn.functional.cross_entropy(own(point), y).backward()
            optimizer.step()

        return step

    def by_art(kind: str) -> Task:
        from art.attacks.evasion import ProjectedGradientDescent
        from art.defences.trainer import (
            AdversarialTrainerMadryPGD,
            AdversarialTrainerTRADESPyTorch,
        )
        from art.estimators.classification import PyTorchClassifier

        own, optimizer = trained(channels_last=False)
        classifier = PyTorchClassifier(
            # As one module: of a Sequential, ART's TRADES takes the first layer's output.
            nn.Sequential(own) if kind == "pgd" else _Whole(own),
            nn.CrossEntropyLoss(),
            x.shape[1:],
            10,
            optimizer=optimizer,
            clip_values=(0.0, 1.0),
            device_type="cpu" if device == "cpu" else "gpu",
        )
        if kind == "pgd":
            trainer: Any = AdversarialTrainerMadryPGD(
                classifier, nb_epochs=1, batch_size=len(x), eps=EPS, eps_step=0.02, max_iter=steps
            )
            trainer.trainer.attacks[0].set_params(verbose=False)
            return lambda: trainer.trainer.fit(images, labels, nb_epochs=1, batch_size=len(x))
        attack = ProjectedGradientDescent(
            classifier, eps=EPS, eps_step=0.02, max_iter=steps, batch_size=len(x), verbose=False
        )
        trainer = AdversarialTrainerTRADESPyTorch(classifier, attack, beta=6.0)
        one_hot = np.eye(10, dtype=np.float32)[labels]
        return lambda: trainer.fit(images, one_hot, nb_epochs=1, batch_size=len(x))

    finite = LFRSettings(eps=EPS, steps=steps, renew_every=2)
    exact = replace(finite, estimator="exact")
    every, once = replace(finite, renew_every=1), replace(finite, renew_every=steps)
    few = LFRSettings(eps=EPS, steps=min(steps, FEW))
    art: dict[str, Callable[[], Task]] = {
        "iteration, ART's AdversarialTrainerMadryPGD": partial(by_art, "pgd"),
        "iteration, ART's TRADES": partial(by_art, "trades"),
    }
    return {
        "forward pass": forward,
        "PGD step (one gradient)": pgd_step,
        "ascent, two gradients a step": partial(ascent, every),
        "ascent, renewing every second": partial(ascent, finite),
        "ascent, exact": partial(ascent, exact),
        "outer step, finite difference": partial(outer_step, finite),
        "outer step, exact": partial(outer_step, exact),
        "iteration, LFR, as by default": partial(iteration, few, warm=True),
        "iteration, LFR held, as by default": partial(iteration, few, "lfr-held", warm=True),
        "iteration, adversarial training, as by default": partial(
            iteration, few, "adversarial-training", warm=True
        ),
        "iteration, LFR, as by default, bf16": partial(iteration, few, warm=True, bf16=True),
        "iteration, LFR": partial(iteration, finite),
        "iteration, LFR, two gradients a step": partial(iteration, every),
        "iteration, LFR, one gradient a step": partial(iteration, once),
        "iteration, LFR, in bfloat16": partial(iteration, replace(finite, autocast=True)),
        "iteration, LFR exact": partial(iteration, exact),
        "iteration, as published": partial(published, channels_last=False),
        "iteration, as published, channels last": published,
        "iteration, PGD adversarial training": partial(
            plain_adversarial_training, channels_last=False
        ),
        "iteration, PGD adversarial training, channels last": plain_adversarial_training,
        **(art if find_spec("art") else {}),
    }


class _Whole(nn.Module):
    """A network as one step."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)
        return logits
