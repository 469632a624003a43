"""AutoAttack, the standard of the field, on any model and box: `run_autoattack`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from art_lfr.art.adapter import BoundsChoice
from art_lfr.attacks.image_checks import check_square
from art_lfr.attacks.target import Target, make_target, unharmed
from art_lfr.attacks.unit_box import UnitBox
from art_lfr.autoattack.backend import suite_for
from art_lfr.autoattack.state import AttackState
from art_lfr.autoattack.suite import Listener, Progress, run_suite
from art_lfr.core.arguments import Array, check_choice, check_flag, check_integer, check_number
from art_lfr.core.geometry import parse_norm
from art_lfr.core.randomness import seed_global_generators

VERSIONS = ("standard", "plus", "rand")


@dataclass(frozen=True)
class AutoAttackResult:
    """What AutoAttack found.

    Attributes:
        accuracies: The share of samples still correct, after "clean" and after each attack that
            was run, in order. Attacks stop where no sample is left.
        robust: Whether each sample withstood all attacks, shape (N,).
        adversarial: Examples in raw units, shape (N, ...); x itself where no attack succeeded.
        seconds: What each attack took.
        flags: AutoAttack's warnings, each a reason to doubt the result, and what was changed for
            models with few classes.
        version: "standard", "plus" or "rand".
        backend: The package that attacked, with its version.
    """

    accuracies: dict[str, float]
    robust: Array
    adversarial: Array
    seconds: dict[str, float]
    flags: list[str]
    version: str
    backend: str

    @property
    def accuracy(self) -> float:
        """The share of samples that withstood all attacks."""
        return float(self.robust.mean())


def run_autoattack(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: float,
    norm: float | str = math.inf,
    version: str = "standard",
    bounds: BoundsChoice = "auto",
    batch_size: int = 250,
    seed: int = 0,
    state_path: str | Path | None = None,
    verbose: bool = False,
) -> AutoAttackResult:
    """Robust accuracy under AutoAttack (Croce & Hein, ICML 2020), which can be killed and resumed.

    With fewer than ten classes the targeted attacks use as many targets as there are; with fewer
    than four, where their loss is not defined, APGD-T is left out. The original package
    `autoattack` attacks where it is installed, `pyautoattack` elsewhere. The model's modes, flags
    and gradients, x, and the global random state are left as found.

    Args:
        model: A module that maps (N, C, H, W) to logits; or an ART `PyTorchClassifier`, whose
            preprocessing and `clip_values` are then used.
        x: Images, shape (N, C, H, W), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows.
        eps: Radius of the ball, > 0, in raw units (before preprocessing).
        norm: p of the ball: np.inf, 2 or 1.
        version: "standard" (the one to report), "plus" (longer), or "rand" (for randomised models).
        bounds: Valid inputs (low, high), finite and equally wide for all features.
        batch_size: Samples at a time. It decides which samples share random numbers, so a result
            repeats only with the same one.
        seed: Seed of every attack.
        state_path: File that is written after each batch (and one beside it, `<name>.examples`).
            Where it exists, the run goes on from it and ends as one that was not stopped.
        verbose: Show a bar for each attack.

    Returns:
        An `AutoAttackResult`.

    Raises:
        ValueError, TypeError: For bad arguments or data, or a `state_path` of another run, naming
            the parameter.
    """
    check_number("eps", eps, low_allowed=False)
    p = parse_norm(norm)
    check_choice("version", version, VERSIONS)
    check_integer("batch_size", batch_size, low=1)
    check_integer("seed", seed, low=0)
    check_flag("verbose", verbose)
    target = make_target(
        model, x, y, eps=float(eps), p=p, bounds=bounds, batch_size=batch_size, seed=seed
    )
    return attack_target(target, version=version, state_path=state_path, progress=verbose)


def attack_target(
    target: Target,
    *,
    version: str = "standard",
    state_path: str | Path | None = None,
    progress: bool = False,
) -> AutoAttackResult:
    """`run_autoattack` on a model and data that are checked already; `progress` shows bars."""
    check_choice("version", version, VERSIONS)
    instead = "other attacks, e.g. evaluate(..., attacks=['PGD-40', 'APGD-T'])"
    suite, checks, backend, unit_box, changed = suite_for(
        target, who="AutoAttack", instead=instead, version=version
    )
    if "square" in suite.attacks_to_run:
        check_square(target.x, target.ball.p, instead)
    with unharmed(target.module, target.device), _Bars(shown=progress) as bars:
        # A randomised model draws from the global generators.
        seed_global_generators(target.seed)
        state = run_suite(
            suite,
            unit_box.to_unit(target.x),
            target.y,
            batch_size=target.batch_size,
            checks=checks,
            state_path=state_path,
            listener=Listener(progress=bars.update),
        )
        adversarial = _raw_examples(state, target, unit_box)
    return AutoAttackResult(
        accuracies=state.accuracies,
        robust=state.robust.numpy(),
        adversarial=adversarial.numpy(),
        seconds=state.seconds,
        flags=changed + state.flags,
        version=version,
        backend=backend,
    )


def _raw_examples(state: AttackState, target: Target, unit_box: UnitBox) -> Tensor:
    """Examples in raw units; each is one that fools the model."""
    raw = target.x.clone()
    for chosen in torch.split((state.clean & ~state.robust).nonzero()[:, 0], target.batch_size):
        unit, start = state.adversarial[chosen], target.x[chosen]
        raw[chosen] = unit_box.to_example(
            unit.to(target.device), start.to(target.device), target.module, target.ball.box
        ).cpu()
    return raw


class _Bars:
    """A progress bar for each attack, on stderr."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._attack = ""
        self._bar: tqdm[Any] | None = None

    def update(self, found: Progress) -> None:
        """Show how far an attack is, in a bar of its own."""
        if found.attack != self._attack or self._bar is None:
            self.close()
            self._attack = found.attack
            self._bar = tqdm(
                total=found.batches,
                initial=found.batch,
                desc=found.attack,
                unit="batch",
                disable=not self._shown,
            )
        self._bar.set_postfix(robust=found.robust, refresh=False)
        self._bar.update(found.batch - self._bar.n)

    def close(self) -> None:
        """Leave the last bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
