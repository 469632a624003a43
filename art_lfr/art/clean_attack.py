"""ART's evasion attacks on a part of the clean term."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from art.attacks import EvasionAttack
from torch import Tensor

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.core.arguments import check_number
from art_lfr.errors import UsageError, WrongTypeError


def check_ratio(ratio: float) -> None:
    """Raise unless `ratio` is in (0, 1]."""
    check_number("ratio", ratio, low_allowed=False)
    if ratio > 1:
        raise UsageError(f"ratio is {ratio!r}; allowed: a number in (0, 1]")


class CleanTermAttack:
    """Replaces a part of each batch by adversarial examples of ART attacks, for the clean term.

    Args:
        attacks: One `EvasionAttack` or several, of which one is drawn for each batch.
        ratio: The part of each batch that is attacked, in (0, 1].
        adapter: The classifier that is trained.
        eps: The radius of the trainer; an attack with another is asked about.
    """

    def __init__(
        self, attacks: object, ratio: float, adapter: ClassifierAdapter, eps: float
    ) -> None:
        listed: Sequence[Any] = attacks if isinstance(attacks, list | tuple) else [attacks]
        for attack in listed:
            if not isinstance(attack, EvasionAttack):
                raise WrongTypeError(
                    f"attack is a {type(attack).__name__}; allowed: an "
                    "art.attacks.EvasionAttack, or a list of them"
                )
            if getattr(attack, "targeted", False):
                raise UsageError(
                    f"attack is a targeted {type(attack).__name__}; allowed: untargeted attacks"
                )
            if tuple(attack.estimator.input_shape) != tuple(adapter.classifier.input_shape):
                raise UsageError(
                    f"attack has an estimator with input_shape {attack.estimator.input_shape}; "
                    f"allowed: {adapter.classifier.input_shape}, that of the classifier"
                )
            other = getattr(attack, "eps", eps)
            if isinstance(other, int | float) and not math.isclose(other, eps):
                warnings.warn(
                    f"attack has eps {other:g}, the trainer eps {eps:g}: is that meant? The "
                    "penalty's ball has the trainer's; give both the same for one threat model.",
                    UserWarning,
                    stacklevel=5,  # the line that makes the trainer
                )
        if not listed:
            raise UsageError("attack is an empty list; allowed: at least one attack, or None")
        self._attacks = listed
        self._ratio = ratio
        self._adapter = adapter

    def __repr__(self) -> str:
        names = [type(attack).__name__ for attack in self._attacks]
        return f"{', '.join(names)} on {self._ratio:g}"

    def __call__(
        self, samples: int, generator: torch.Generator
    ) -> Callable[[Tensor, Tensor, slice], Tensor]:
        """Draw one of the attacks, and which samples of a batch it replaces."""
        attack = self._attacks[int(torch.randint(len(self._attacks), (), generator=generator))]
        count = max(1, round(self._ratio * samples))
        replaced = torch.zeros(samples, dtype=torch.bool)
        replaced[torch.randperm(samples, generator=generator)[:count]] = True
        return partial(self._replace, attack, replaced)

    def _replace(self, attack: Any, replaced: Tensor, x: Tensor, y: Tensor, rows: slice) -> Tensor:
        """Some rows of a batch, the drawn ones of them replaced by adversarial examples."""
        indices = replaced[rows].nonzero().flatten().to(x.device)
        if len(indices) == 0:
            return x
        labels = y.argmax(dim=1) if y.dim() == 2 and y.shape[1] > 1 else y.flatten().long()
        # ART's attacks leave the network in eval mode.
        with self._adapter.network_mode(training=False):
            adversarial = attack.generate(
                x=x[indices].cpu().numpy(), y=labels[indices].cpu().numpy()
            )
        attacked = x.clone()
        attacked[indices] = torch.as_tensor(adversarial, dtype=x.dtype, device=x.device)
        return attacked
