"""What an epoch of training adds up, and the collapse that its predictions show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from art_lfr.training.step import StepResult

# Of fewer samples, one label for all may be chance.
FEWEST = 10
# So many of an epoch tell what the network at its end has learnt.
LAST = 100


def collapse(batches: Sequence[tuple[Tensor, Tensor]], prefix: str) -> str | None:
    """What a collapsed network does, in words; None for a network that has not collapsed.

    A collapsed network predicts one class for all samples, or one class for all samples of each
    batch: each step of the optimizer may change the class of a constant network.

    Args:
        batches: Predicted labels and targets of each, (N,), in the order of their predictions.
        prefix: What the samples are called.
    """
    labels, targets = (torch.cat(part) for part in zip(*batches, strict=True))
    if _constant([(labels, targets)]):
        return f"predicts class {int(labels[0])} for all of {len(labels)} {prefix} samples"
    if _constant(batches):
        return (
            f"predicts one class for all samples of a batch, in each of the last {len(batches)} "
            f"{prefix} batches"
        )
    return None


def has_learnt(batches: Sequence[tuple[Tensor, Tensor]], best: float) -> bool:
    """Whether a network knows something, and has not just lost much of it.

    Its accuracy is above that of naming the largest class, by a tenth of what is left, and no tenth
    below `best`, that of the best epoch before.
    """
    labels, targets = (torch.cat(part) for part in zip(*batches, strict=True))
    if len(targets) == 0 or targets.dim() > 1 or targets.is_floating_point():
        return False
    right, count = int((labels == targets).sum()), len(targets)
    largest = int((targets == targets.mode().values).sum())
    return right > largest + 0.1 * (count - largest) and right >= 0.9 * best * count


def _constant(batches: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether in each batch of several classes the prediction is one class."""
    mixed = [labels for labels, y in batches if len(y) > 0 and bool((y != y[0]).any())]
    chances = sum(len(labels) - 1 for labels in mixed)
    return chances >= FEWEST - 1 and all(bool((part == part[0]).all()) for part in mixed)


NAMES = ("loss", "clean_loss", "flatness", "train_accuracy", "gradient_norm")
# The others have no room in the bar.
SHOWN = ("loss", "flatness", "train_accuracy")


class EpochSums:
    """Sums over the samples of an epoch, of which `about` heads the progress bar."""

    def __init__(self, about: str, bar: tqdm[Any]) -> None:
        self._about, self._bar = about, bar
        self._sums = dict.fromkeys(NAMES, 0.0)
        self._samples = 0
        self._batches: list[tuple[Tensor, Tensor]] = []

    def add(self, result: StepResult, samples: int) -> None:
        """A batch of so many samples has been trained on."""
        for name, value in result.means.items():
            self._sums[name] += value * samples
        self._samples += samples
        self._batches.append((result.predicted, result.targets))
        self._bar.set_description(self._about, refresh=False)
        means = self.means
        self._bar.set_postfix({name: f"{means[name]:.3g}" for name in SHOWN}, refresh=False)
        self._bar.update()

    @property
    def empty(self) -> bool:
        """Whether no batch has been trained on."""
        return not self._batches

    @property
    def means(self) -> dict[str, float]:
        """The mean of each over the samples so far."""
        return {name: value / self._samples for name, value in self._sums.items()}

    def late(self) -> list[tuple[Tensor, Tensor]]:
        """Predicted labels and targets of the later half of the batches: the first may learn."""
        return self._batches[len(self._batches) // 2 :]

    def last(self) -> list[tuple[Tensor, Tensor]]:
        """Those of the last batches, a hundred samples where there are as many."""
        chosen: list[tuple[Tensor, Tensor]] = []
        for batch in reversed(self._batches):
            chosen.insert(0, batch)
            if sum(len(labels) for labels, _ in chosen) >= LAST:
                break
        return chosen
