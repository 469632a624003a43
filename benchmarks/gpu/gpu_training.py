"""LFR and adversarial training on CIFAR-10, each for the same seconds.

    python benchmarks/gpu/gpu_training.py OUTPUT lfr lfr.pt

puts the weights of a method together, in the float32 that was judged, for

    art-lfr evaluate --model preact-resnet-18 --weights lfr.pt --attacks autoattack ...
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_part import Job
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion
from art_lfr.core.flatness import flatness_values
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.pgd import classify, projected_gradient_descent
from art_lfr.core.precision import NarrowModel
from art_lfr.core.settings import LFRSettings
from art_lfr.data import Augmentation
from art_lfr.data.augmentation import BY_NAME
from art_lfr.data.files import load_npz
from art_lfr.data.recipes import Recipe, recipe_for
from art_lfr.errors import TrainingError
from art_lfr.models import BUILT_IN
from art_lfr.penalties import penalty_for
from art_lfr.storage.files import write_atomically
from art_lfr.training.batches import Batch, TensorBatches
from art_lfr.training.loop import Record, TrainingLoop
from art_lfr.training.options import TrainingOptions
from art_lfr.training.scheduling import Schedule
from art_lfr.training.step import Objective

# By their penalties, with the eps of adversarial training as a multiple of LFR's: as the ball in
# which the ends of LFR's finite difference lie, eps + h.
METHODS = {"lfr": 1.0, "adversarial-training": 1.25}
# Of the time that is left after the data is there, the part in which each method trains.
TRAINING_PART = 0.4
JUDGED, ATTACK_STEPS = 2000, 40
# Files of weights are smaller than this.
FILE_BYTES = 15 * 2**20
# The learning rate rises over this part of the time, from this part of the peak.
RISE, FIRST = 0.3, 0.04


class UntilTheEnd(TensorBatches):
    """Batches for so many seconds: the last epoch is cut off."""

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, device: torch.device) -> None:
        super().__init__(x, y, batch_size, device)
        self.began, self.seconds, self.seen = time.monotonic(), math.inf, 0

    def start(self, seconds: float) -> None:
        """From now on."""
        self.began, self.seconds, self.seen = time.monotonic(), seconds, 0

    @property
    def part(self) -> float:
        """The part of the time that is over."""
        return min(1.0, (time.monotonic() - self.began) / self.seconds)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """All samples once, or as many as there is time for, and one batch in any case."""
        for index, batch in enumerate(super().epoch(generator)):
            if index and self.part >= 1:
                return
            self.seen += len(batch.x)
            yield batch


def one_cycle(part: float) -> float:
    """The learning rate after this part of the time, as a part of its peak: up and down again."""
    if part < RISE:
        return FIRST + (1 - FIRST) * (1 - math.cos(math.pi * part / RISE)) / 2
    return (1 + math.cos(math.pi * (part - RISE) / (1 - RISE))) / 2


def train(
    job: Job, method: str, recipe: Recipe, x: Tensor, y: Tensor, seconds: float
) -> tuple[nn.Module, dict[str, Any]]:
    """Train with the trainer's defaults for so many seconds."""
    network = BUILT_IN[recipe.model](0).to(job.device, memory_format=torch.channels_last)
    given = {k: v for k, v in recipe.objective(method).items() if k != "warmup_epochs"}
    penalty = penalty_for(method, given)
    settings = penalty.settled(
        LFRSettings(
            eps=METHODS[method] * recipe.eps,
            steps=recipe.max_iter,
            **given,
        )
    )
    box = Box.from_bounds((0.0, 1.0), x[:1])
    objective = Objective(network, Criterion(), lambda batch: box, penalty=penalty)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay
    )
    batches = UntilTheEnd(x, y, recipe.batch_size, job.device)
    augment = BY_NAME[recipe.augmentation]
    model = NarrowModel(network, torch.bfloat16) if job.bfloat16 else network
    timed = replace(objective, model=model)
    step = _seconds_of_a_step(job, timed, optimizer, settings, batches, augment)
    # At least one, for the warm-up.
    epochs = max(1.0, seconds / (step * len(batches)))
    loop = TrainingLoop(
        objective,
        network,
        optimizer,
        settings=settings,
        options=TrainingOptions(
            warmup_epochs=min(recipe.warmup_epochs, epochs / 3),
            augment=augment,
            precision="bf16" if job.bfloat16 else "float32",
            verbose=False,
        ),
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: one_cycle(batches.part))
    about = {
        "eps": settings.eps,
        "lam": settings.lam,
        "steps": settings.steps,
        "seconds of a step at first": step,
    }

    def tell(record: Record) -> bool:
        about.update(
            {"epochs": batches.seen / len(x), "history": list(loop.state.history)},
            seconds=time.monotonic() - batches.began,
        )
        job.result["methods"][method] = about
        job.write()
        return batches.part >= 1

    batches.parts()  # a hash of the images, which is no part of the training
    batches.start(seconds)
    # More epochs than there is time for: the callback stops.
    loop.fit(batches, 10**6, schedule=Schedule(scheduler, "batch"), callback=tell)
    return network, about


def _seconds_of_a_step(
    job: Job,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    settings: LFRSettings,
    batches: TensorBatches,
    augment: Augmentation | None,
) -> float:
    """The median of a few, at learning rate 0, and undone."""
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    (rate,) = (group["lr"] for group in optimizer.param_groups)
    optimizer.param_groups[0]["lr"] = 0.0
    generator, times = torch.Generator().manual_seed(0), []
    objective.model.train()
    for x, y, _ in islice(batches.epoch(generator), 2 if job.rehearsal else 10):
        began = time.monotonic()
        objective.step(
            x if augment is None else augment(x, generator),
            y,
            optimizer=optimizer,
            settings=settings,
            generator=generator,
            max_grad_norm=1.0,
        )
        job.wait()
        times.append(time.monotonic() - began)
    objective.model.load_state_dict(before)
    optimizer.state.clear()
    optimizer.param_groups[0]["lr"] = rate
    return median(times)


def save(folder: Path, method: str, network: nn.Module) -> list[str]:
    """Round the weights to float16, and keep them in files of a few MiB; the files' names.

    The vectors, of which running variances may be large, stay in float32. The network has the
    rounded weights afterwards.
    """
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in network.state_dict().items():
        rounded = value.half() if value.dim() > 1 else value
        value.copy_(rounded)
        size += rounded.nbytes
        if size > FILE_BYTES:
            parts.append({})
            size = rounded.nbytes
        parts[-1][name] = rounded.cpu()
    names = [f"{method}-{index}.pt" for index in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        write_atomically(folder / name, lambda file, part=part: torch.save(part, file))
    return names


def join(folder: Path, method: str) -> dict[str, Tensor]:
    """The weights of a method as they were judged."""
    weights: dict[str, Tensor] = {}
    for path in sorted(folder.glob(f"{method}-[0-9].pt")):
        weights |= torch.load(path, weights_only=True)
    return {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}


def judge(job: Job, network: nn.Module, eps: float, x: Tensor, y: Tensor) -> dict[str, float]:
    """Clean accuracy, accuracy under PGD, and mean local flatness."""
    criterion, generator = Criterion(), torch.Generator().manual_seed(0)
    box, steps = Box.from_bounds((0.0, 1.0), x[:1]), 2 if job.rehearsal else ATTACK_STEPS
    ball = Ball(eps, math.inf, box)
    right = classify(network, criterion, x, y, 512)[1]
    examples = [
        projected_gradient_descent(
            network,
            criterion,
            part,
            labels,
            ball=ball,
            steps=steps,
            step_size=2.5 * eps / steps,
            start=ball.random_point(part, generator),
        )
        for part, labels in zip(x.split(512), y.split(512), strict=True)
    ]
    held = classify(network, criterion, torch.cat(examples), y, 512)[1]
    result = {
        "images": len(x),
        "clean": float(right.double().mean()),
        f"PGD-{ATTACK_STEPS}": float((right & held).double().mean()),
    }
    if job.left > 0:
        found = flatness_values(
            network,
            criterion,
            x[:512],
            y[:512],
            box=box,
            settings=LFRSettings(eps=eps, steps=steps // 2),
            generator=generator,
        )
        result["flatness"] = float(found.mean())
    return result


def run_part(job: Job) -> None:
    """Both methods, one after the other, and what PGD leaves of each."""
    assert job.data is not None
    few = {"validation": 0, "train": 16, "test": 4} if job.rehearsal else {}
    recipe = recipe_for(
        "cifar10",
        model="narrow-resnet" if job.rehearsal else "preact-resnet-18",
        augmentation="crop-flip",
        batch_size=8 if job.rehearsal else None,
    )
    images = load_npz(job.data, **few)
    x, y = (torch.from_numpy(part).to(job.device) for part in (images.x_train, images.y_train))
    first = slice(0, JUDGED)
    x_test = torch.from_numpy(images.x_test[first]).to(job.device)
    y_test = torch.from_numpy(images.y_test[first]).to(job.device)
    job.write(
        recipe={name: value for name, value in vars(recipe).items() if name != "epochs"},
        bfloat16=job.bfloat16,
        data=images.digest,
        methods={},
    )
    seconds = 0.1 if job.rehearsal else TRAINING_PART * job.left
    for method in METHODS:
        try:
            network, about = train(job, method, recipe, x, y, seconds)
        except TrainingError as error:  # the other method is trained all the same
            job.result["methods"].setdefault(method, {})["error"] = str(error)
            job.write()
            continue
        about["weights"] = save(job.output, method, network)
        job.write()
        about["judged"] = judge(job, network, recipe.eps, x_test, y_test)
        job.write()
        print(method, about["judged"], flush=True)


if __name__ == "__main__":
    torch.save(join(Path(sys.argv[1]), sys.argv[2]), sys.argv[3])
