"""What is measured after an epoch: clean and robust accuracy, flatness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion
from art_lfr.core.flatness import flatness_values
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.pgd import classify, projected_gradient_descent
from art_lfr.core.processes import Processes
from art_lfr.core.settings import LFRSettings
from art_lfr.training.batches import Batches
from art_lfr.training.options import TrainingOptions

PGD_STEPS = 10


@dataclass(frozen=True)
class Monitor:
    """Measures a model on fixed samples: clean on all of them, PGD and flatness on the first few.

    Metrics are named `<prefix>_accuracy`, `_loss`, `_robust_accuracy` (clean and PGD-10 right),
    `_robust_loss` (at the examples of PGD-10), `_flatness`. The generator is seeded anew each time,
    so that epochs are comparable.
    """

    prefix: str
    x: Tensor
    y: Tensor
    attacked: int
    batch_size: int
    seed: int

    def measure(
        self,
        model: nn.Module,
        criterion: Criterion,
        box: Box,
        settings: LFRSettings,
        processes: Processes | None = None,
    ) -> tuple[dict[str, float], Tensor]:
        """The metrics, and the predicted labels of all samples.

        `processes` deal the batches among them; all end with the metrics of a single one.
        """
        processes = processes or Processes.single()
        shared = self.batch_size, processes
        loss, correct, labels = classify(model, criterion, self.x, self.y, *shared)
        x, y = self.x[: self.attacked], self.y[: self.attacked]
        generator = torch.Generator().manual_seed(self.seed)
        ball = Ball(settings.eps, settings.norm, box)
        inputs, targets = torch.split(x, self.batch_size), torch.split(y, self.batch_size)

        def start(index: int) -> Tensor:
            return ball.random_point(inputs[index], generator)

        def attack(index: int) -> list[Tensor]:
            found = projected_gradient_descent(
                model,
                criterion,
                inputs[index],
                targets[index],
                ball=ball,
                steps=PGD_STEPS,
                step_size=2.5 * settings.eps / PGD_STEPS,
                start=start(index),
            )
            return processes.to_send(found)

        examples = [example for (example,) in processes.dealt(len(inputs), attack, start)]
        adversarial = torch.cat(examples).to(x.device)
        robust_loss, withstood, _ = classify(model, criterion, adversarial, y, *shared)
        flatness = flatness_values(
            model,
            criterion,
            x,
            y,
            box=box,
            # What is measured must depend neither on the estimator nor on the few steps of an
            # ascent that goes on from epoch to epoch: this one starts anew.
            settings=LFRSettings(
                eps=settings.eps, norm=settings.norm, lam=1.0, radius=settings.radius or 1.0
            ),
            generator=generator,
            batch_size=self.batch_size,
            processes=processes,
        )
        metrics = {
            "loss": loss.mean(),
            "accuracy": correct.double().mean(),
            "robust_accuracy": (withstood & correct[: self.attacked]).double().mean(),
            "robust_loss": robust_loss.mean(),
            "flatness": flatness.mean(),
        }
        return {f"{self.prefix}_{name}": float(value) for name, value in metrics.items()}, labels


def monitors_for(
    batches: Batches, validation: tuple[Tensor, Tensor] | None, options: TrainingOptions
) -> list[Monitor]:
    """Monitors of validation data and of as many training samples, so that overfitting shows."""
    if validation is None:
        return []
    # In random order: what is attacked are the first ones, and data may be sorted by label.
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(len(validation[0]), generator=generator).to(validation[0].device)
    monitored = [("validation", (validation[0][order], validation[1][order]))]
    if (subset := batches.sample(options.monitor_samples, options.seed)) is not None:
        monitored.append(("train_subset", subset))
    size = max(batches.batch_size, 128)
    return [
        Monitor(prefix, x, y, options.monitor_samples, size, options.seed)
        for prefix, (x, y) in monitored
    ]
