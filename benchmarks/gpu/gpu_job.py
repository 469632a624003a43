"""LFR and PGD adversarial training side by side on one device, for equal time.

    PYTHONPATH=. python benchmarks/gpu/gpu_job.py cifar10-preact-resnet-18 DATA.npz OUTPUT MINUTES

It uses only the layers of the package that need neither ART nor attack libraries: torch, NumPy and
tqdm are enough, with Pillow for JPEG archives. What the others would add (AutoAttack) is listed in
the result as not run. OUTPUT gets JOB.json and the weights of each method, to be judged where the
attacks are:

    art-lfr evaluate --model preact-resnet-18 --weights OUTPUT/JOB-lfr.pt --attacks autoattack ...
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from art_lfr import __version__
from art_lfr.comparison.judging import describe_machine
from art_lfr.core.criterion import Criterion
from art_lfr.core.flatness import flatness_values
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.pgd import classify, projected_gradient_descent
from art_lfr.core.settings import LFRSettings
from art_lfr.data import Augmentation, Compose, RandomCrop, random_flip
from art_lfr.data.files import load_npz
from art_lfr.models import BUILT_IN
from art_lfr.storage.files import write_atomically
from art_lfr.training.batches import TensorBatches
from art_lfr.training.loop import TrainingLoop
from art_lfr.training.options import TrainingOptions
from art_lfr.training.scheduling import Schedule
from art_lfr.training.step import Objective

# Of the minutes, the part in which each of the two methods trains; the rest is for judging.
TRAINING_PART = 0.42
NOT_RUN = ["AutoAttack", "Square", "masking report"]


@dataclass(frozen=True)
class Job:
    """What is trained."""

    model: str
    eps: float
    steps: int
    batch_size: int
    lr: float
    weight_decay: float
    augment: Augmentation | None
    images: tuple[int, int]


JOBS = {
    "mnist-paper-cnn": Job("paper-cnn", 0.3, 10, 256, 0.05, 0.0, None, (1000, 3000)),
    "cifar10-preact-resnet-18": Job(
        "preact-resnet-18",
        8 / 255,
        10,
        256,
        0.1,
        5e-4,
        Compose(RandomCrop(4), random_flip),
        (0, 2000),
    ),
}


class Autocast(nn.Module):
    """A network whose layers run in bfloat16 in the search for x', which is in eval mode.

    What is descended, in train mode, is in the network's own type: the ends of a finite difference
    with h = eps / 4 lie a few roundings of bfloat16 apart.
    """

    def __init__(self, network: nn.Module, on: bool) -> None:
        super().__init__()
        self.network, self.on = network, on

    def forward(self, x: Tensor) -> Tensor:
        on = self.on and not self.training
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=on):
            logits: Tensor = self.network(x)
        return logits.float()


def train(
    job: Job, method: str, x: Tensor, y: Tensor, device: torch.device, seconds: float
) -> tuple[Autocast, dict[str, float]]:
    """Train for about so many seconds: as many whole epochs as fit, by the time of a few steps.

    It stops after the epoch in which a quarter more is over, however slow the device has become.
    """
    network = BUILT_IN[job.model](0).to(device, memory_format=torch.channels_last)
    model = Autocast(network, device.type == "cuda")
    settings = LFRSettings(eps=job.eps, steps=job.steps, lam=0.0 if method == "pgd" else None)
    box = Box.from_bounds((0.0, 1.0), x[:1])
    # Adversarial training warms up as LFR does.
    warmup_batches, calls = 0.0, 0

    def attack(
        samples: int, generator: torch.Generator
    ) -> Callable[[Tensor, Tensor, slice], Tensor]:
        nonlocal calls
        calls += 1
        eps = job.eps * (min(1.0, calls / warmup_batches) if warmup_batches else 1.0)
        ball = Ball(eps, settings.norm, box)

        def examples(x: Tensor, y: Tensor, rows: slice) -> Tensor:
            return projected_gradient_descent(
                model,
                Criterion(),
                x,
                y,
                ball=ball,
                steps=job.steps,
                step_size=2.5 * eps / job.steps,
                start=ball.random_point(x, generator),
            )

        return examples

    objective = Objective(
        model, Criterion(), lambda batch: box, attack if method == "pgd" else None
    )
    optimizer = torch.optim.SGD(
        network.parameters(), lr=job.lr, momentum=0.9, weight_decay=job.weight_decay
    )
    batches = TensorBatches(x, y, job.batch_size, device)
    epochs = _epochs_within(objective, optimizer, settings, job, batches, seconds)
    warmup = min(2.0, epochs / 3)
    warmup_batches, calls = warmup * len(batches), 0
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, job.lr, total_steps=epochs * len(batches) + 1
    )
    loop = TrainingLoop(
        objective,
        network,
        optimizer,
        settings=settings,
        options=TrainingOptions(warmup_epochs=warmup, augment=job.augment, verbose=False),
    )
    began = time.perf_counter()
    loop.fit(
        batches,
        epochs,
        schedule=Schedule(scheduler, "batch"),
        callback=lambda record: time.perf_counter() - began > 1.25 * seconds,
    )
    done = len(loop.state.history)
    return model, {
        "planned epochs": epochs,
        "epochs": done,
        "seconds": time.perf_counter() - began,
        "lam": settings.lam,
        "radius": settings.radius,
        "warm-up epochs": warmup,
    }


def _epochs_within(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    settings: LFRSettings,
    job: Job,
    batches: TensorBatches,
    seconds: float,
) -> int:
    """Whole epochs that fit: a few steps are timed at learning rate 0, and undone."""
    before = {k: v.clone() for k, v in objective.model.state_dict().items()}
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    generator = torch.Generator().manual_seed(0)
    objective.model.train()
    times = []
    began = time.perf_counter()
    for x, y, _ in islice(batches.epoch(generator), 6):
        objective.step(
            x if job.augment is None else job.augment(x, generator),
            y,
            optimizer=optimizer,
            settings=settings,
            generator=generator,
            max_grad_norm=None,
        )
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    objective.model.load_state_dict(before)
    optimizer.state.clear()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return max(1, int(seconds / (median(times) * len(batches))))


def judge(job: Job, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Clean accuracy, accuracy under 40 steps of PGD, and mean local flatness."""
    box = Box.from_bounds((0.0, 1.0), x[:1])
    criterion, generator = Criterion(), torch.Generator().manual_seed(0)
    settings = LFRSettings(eps=job.eps, steps=20)
    ball = Ball(job.eps, settings.norm, box)
    _, clean, _ = classify(model, criterion, x, y, 512)
    adversarial = projected_gradient_descent(
        model,
        criterion,
        x,
        y,
        ball=ball,
        steps=40,
        step_size=2.5 * job.eps / 40,
        start=ball.random_point(x, generator),
    )
    _, held, _ = classify(model, criterion, adversarial, y, 512)
    flatness = flatness_values(
        model, criterion, x, y, box=box, settings=settings, generator=generator
    )
    return {
        "images": len(x),
        "clean": float(clean.double().mean()),
        "PGD-40": float((clean & held).double().mean()),
        "flatness": float(flatness.mean()),
    }


def run(name: str, data: Path, out: Path, minutes: float) -> None:
    """Both methods, each for half of the time that is not spent on judging."""
    if not minutes > 0:
        raise SystemExit(f"minutes is {minutes:g}; allowed: above 0")
    job = JOBS[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    images = load_npz(data)
    x, y = torch.from_numpy(images.x_train).to(device), torch.from_numpy(images.y_train).to(device)
    first, last = job.images
    x_test = torch.from_numpy(images.x_test[first:last]).to(device)
    y_test = torch.from_numpy(images.y_test[first:last]).to(device)
    result: dict[str, object] = {
        "job": name,
        "machine": describe_machine(),
        "versions": {"art_lfr": __version__, "torch": torch.__version__},
        "settings": {**asdict(job), "augment": job.augment is not None, "seed": 0},
        "data": images.digest,
        "test images": [first, first + len(x_test)],
        "not run": NOT_RUN,
    }
    for method in ("lfr", "pgd"):
        model, times = train(job, method, x, y, device, minutes * 60 * TRAINING_PART)
        weights = {k: v.cpu() for k, v in model.network.state_dict().items()}
        path = out / f"{name}-{method}.pt"
        write_atomically(path, lambda file, weights=weights: torch.save(weights, file))
        model.on = False  # the weights are judged, not the rounding they were trained with
        result[method] = {**times, **judge(job, model, x_test, y_test), "weights": path.name}
        # After each method: a job that is cut off leaves what it has.
        write_atomically(out / f"{name}.json", json.dumps(result, indent=1) + "\n")
        print(method, result[method], flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", choices=sorted(JOBS))
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("minutes", type=float)
    arguments = parser.parse_args()
    run(arguments.job, arguments.data, arguments.output, arguments.minutes)


if __name__ == "__main__":
    main()
