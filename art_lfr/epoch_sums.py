"""What an epoch of training adds up: means over its samples, labels, and the progress bar."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from tqdm import tqdm

from art_lfr.step import StepResult

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
    def means(self) -> dict[str, float]:
        """The mean of each over the samples so far."""
        return {name: value / self._samples for name, value in self._sums.items()}

    def late(self) -> list[tuple[Tensor, Tensor]]:
        """Predicted labels and targets of the later half of the batches: the first may learn."""
        return self._batches[len(self._batches) // 2 :]
