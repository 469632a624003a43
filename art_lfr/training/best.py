"""Which epoch's weights are the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from art_lfr.core.arguments import check_choice
from art_lfr.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_MONITORED = ("accuracy", "robust_accuracy", "loss", "robust_loss", "flatness")
METRICS = (
    "loss",
    "clean_loss",
    "flatness",
    "train_accuracy",
    *(f"validation_{name}" for name in _MONITORED),
    *(f"train_subset_{name}" for name in _MONITORED),
)


def metric_names(best_metric: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The metric and its tie-breaks, in order."""
    if best_metric is None:
        return ()
    return (best_metric,) if isinstance(best_metric, str) else tuple(best_metric)


MONITORS = ("validation", "train_subset")


def check_metrics(
    metrics: str | tuple[str, ...] | None,
    monitored: tuple[str, ...] = MONITORS,
    argument: str = "best_metric",
) -> None:
    """Raise ValueError unless all names are metrics, and measured by the `monitored` ones."""
    for name in metric_names(metrics):
        check_choice(argument, name, METRICS)
        missing = [monitor for monitor in MONITORS if monitor not in monitored]
        if name.startswith(tuple(missing)):
            raise UsageError(
                f"{argument} is {name!r} without validation_data (or, for 'train_subset_...', "
                "with a generator); allowed: give validation_data, or take a metric of the "
                "training batches such as 'loss'"
            )


def is_comparable(best_metric: str | tuple[str, ...], epoch: int, warmup_epochs: float) -> bool:
    """Whether an epoch's metrics can be compared with those of later ones.

    Those of the training batches cannot during warm-up: they belong to a smaller eps and lam.
    """
    return epoch >= warmup_epochs or all(
        name.startswith(MONITORS) for name in metric_names(best_metric)
    )


def score(record: Mapping[str, float], best_metric: str | tuple[str, ...]) -> list[float]:
    """The metrics of a record, signed so that more is better: accuracies rise, others fall."""
    return [
        record[name] if name.endswith("accuracy") else -record[name]
        for name in metric_names(best_metric)
    ]


@dataclass(frozen=True)
class BestWeights:
    """The best epoch so far (counted from 1), its score and its weights on the CPU."""

    epoch: int
    score: list[float]
    state: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        record: Mapping[str, float],
        best_metric: str | tuple[str, ...],
        state: Mapping[str, Tensor],
    ) -> BestWeights:
        """Keep a copy of this epoch's weights."""
        copied = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
        return cls(int(record["epoch"]), score(record, best_metric), copied)

    def is_beaten_by(self, record: Mapping[str, float], best_metric: str | tuple[str, ...]) -> bool:
        """Whether a record is strictly better, later metrics breaking ties of earlier ones."""
        return score(record, best_metric) > self.score

    def to_plain(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"epoch": self.epoch, "score": self.score, "state": self.state}
