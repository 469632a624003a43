"""AutoAttack, the standard of the field, on any model and box: `run_autoattack`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from art_lfr.art.module import BoundsChoice
from art_lfr.attacks.named import Attack, Attacked
from art_lfr.attacks.target import (
    Target,
    UnitBox,
    judged_together,
    make_target,
    missing_gradient_named,
    preserved,
)
from art_lfr.autoattack.backend import FlagCollector, suite_for
from art_lfr.autoattack.state import AttackState
from art_lfr.autoattack.suite import perturb, run_suite
from art_lfr.core.arguments import Array, check_choice
from art_lfr.core.modes import gradients_enabled
from art_lfr.core.processes import Processes
from art_lfr.core.randomness import seed_global_generators
from art_lfr.errors import UsageError
from art_lfr.storage.files import check_output

SQUARE_QUERIES = 1000
# Square starts from stripes a fifth of an image wide, except for p = inf.
SMALLEST_SIDE_FOR_SQUARE = 5
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


@gradients_enabled()
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

    Under `accelerate launch` all processes call it. Each attacks whole batches, and all get the
    result that one would have; the main one writes `state_path`, from which another number of
    processes may go on. Of a model that draws random numbers the main one does all.

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
        bounds: Valid inputs (low, high), finite and equally wide for all features. "auto": [0, 1],
            or a classifier's `clip_values`.
        batch_size: Samples at a time. It decides which samples share random numbers, so a result
            repeats only with the same one.
        seed: Seed of every attack.
        state_path: File that is written after each batch (and one beside it, `<name>.examples`).
            Where it exists, the run goes on from it and ends as one that was not stopped.
        verbose: Show a bar for each attack, on a terminal.

    Returns:
        An `AutoAttackResult`.

    Example::

        from art_lfr.autoattack import run_autoattack

        found = run_autoattack(model, x, y, eps=0.1, state_path="run.state")
        print(found.accuracy, found.flags)

    Raises:
        ValueError, TypeError: For bad arguments or data, or a `state_path` of another run, naming
            the parameter.
    """
    check_choice("version", version, VERSIONS)
    processes = Processes()
    place = state_path
    if place is not None:  # before the model is called, which may change the directory
        state_path = processes.by_main(lambda: check_output(place, "state_path"))
    target = make_target(
        model,
        x,
        y,
        eps=eps,
        norm=norm,
        bounds=bounds,
        batch_size=batch_size,
        seed=seed,
        progress=verbose,
        processes=processes,
    )

    def judge(target: Target) -> AutoAttackResult:
        processes.check_same("version", version)
        return attack_target(target, version=version, state_path=state_path)

    with missing_gradient_named(f"version is {version!r}, which"):
        return judged_together(target, judge)


def attack_target(
    target: Target,
    *,
    version: str = "standard",
    state_path: str | Path | None = None,
) -> AutoAttackResult:
    """`run_autoattack` on a model and data that are checked already, in all their processes."""
    check_choice("version", version, VERSIONS)
    instead = "other attacks, e.g. evaluate(..., attacks=['PGD-40', 'APGD-T'])"
    suite, checks, backend, unit_box, changed = suite_for(
        target, who="AutoAttack", instead=instead, version=version
    )
    if "square" in suite.attacks_to_run:
        check_square(target.x, target.ball.p, instead)
    with preserved(target.module, target.device):
        # A randomised model draws from the global generators.
        seed_global_generators(target.seed)
        state = run_suite(
            suite,
            unit_box.to_unit(target.x),
            target.y,
            batch_size=target.batch_size,
            checks=checks,
            state_path=state_path,
            progress=target.progress,
            processes=target.processes,
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


def auto_attack(name: str, target: Target) -> Attack:
    """APGD-CE, APGD-T or Square of AutoAttack (Croce & Hein 2020), batch by batch.

    They attack inputs in [0, 1], so the box is mapped onto it. Raises ValueError where the box is
    missing or not equally wide everywhere, and for Square where x is not (N, C, H, W).
    """
    instead = "another list of attacks, e.g. attacks=['PGD-40']"
    suite, _, _, unit_box, _ = suite_for(target, who=name, instead=instead)
    if name == "Square":
        check_square(target.x, target.ball.p, instead)
    suite.square.n_queries = SQUARE_QUERIES

    def attack(x: Tensor, y: Tensor) -> Attacked:
        def of_batch(rows: slice) -> tuple[Tensor, list[str]]:
            raw, labels = x[rows].to(target.device), y[rows].to(target.device)
            collector = FlagCollector()
            with collector.attached(suite):
                unit = perturb(suite, name.lower(), unit_box.to_unit(raw), labels).detach()
            example = unit_box.to_example(unit, raw, target.module, target.ball.box)
            return example.cpu(), collector.flags

        # Each batch seeds the generators anew: it does not matter who has attacked the one before.
        examples, told = zip(*target.dealt(len(x), of_batch), strict=True)
        flags = list(dict.fromkeys(flag for flags in told for flag in flags))
        return Attacked(torch.cat(examples), {"flags": flags} if flags else {})

    return attack


def check_square(x: Tensor, p: float, instead: str) -> None:
    """Raise ValueError where Square cannot attack x in the p-norm; `instead` is what a user can."""
    if x.dim() != 4:
        raise UsageError(
            f"x has shape {tuple(x.shape)}, but Square needs images (N, C, H, W); allowed: such "
            f"images, or {instead}"
        )
    if p != math.inf and min(x.shape[2:]) < SMALLEST_SIDE_FOR_SQUARE:
        raise UsageError(
            f"x has images of {x.shape[2]} x {x.shape[3]} pixels; allowed: at least "
            f"{SMALLEST_SIDE_FOR_SQUARE} x {SMALLEST_SIDE_FOR_SQUARE} for Square in this norm, or "
            f"{instead}"
        )
