"""Accuracy under attacks and local flatness, in one table: `evaluate`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from art_lfr.arguments import check_integer, check_number
from art_lfr.attacks import Attack, resolve_attacks
from art_lfr.geometry import Ball, Bounds, parse_norm, sample_norm
from art_lfr.measure import local_flatness
from art_lfr.randomness import seed_global_generators
from art_lfr.results import Array, Evaluation, Row
from art_lfr.target import Target, make_target, unharmed

# An example may leave the ball by this share of eps, and by this many units in the last place of
# the largest value for each coordinate that the norm sums over.
BALL_SLACK = 1e-4
ROUNDING_ULPS = 8


def evaluate(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: float,
    norm: float | str = math.inf,
    attacks: object = "quick",
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 256,
    seed: int = 0,
    flatness_steps: int = 20,
    verbose: bool = False,
    callback: Callable[[Row], object] | None = None,
) -> Evaluation:
    """Accuracy without and with attacks, the worst case per sample, and local flatness.

    Every attack starts from the samples that are classified correctly without one; the others
    count as errors throughout. Each adversarial example is checked to lie in the ball and the
    valid box. The model's modes, flags and gradients, x, and the global random state are left as
    found.

    Args:
        model: A module that maps (N, ...) to logits, with tensors or arrays; or an ART
            `PyTorchClassifier`, whose preprocessing, loss and `clip_values` are then used.
        x: Inputs, shape (N, ...), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows.
        eps: Radius of the ball, > 0, in raw units (before preprocessing).
        norm: p of the ball: np.inf, 2 or 1.
        attacks: "quick" (PGD-40 of ART, APGD-T and Square with 1,000 queries of AutoAttack), a
            list of these names and ART attack objects, or a mapping from names to ART attacks.
        bounds: Valid inputs (low, high), numbers or per-feature arrays, or None.
        batch_size: Samples at a time.
        seed: Seed of every attack and of the flatness.
        flatness_steps: Ascent steps of the flatness, >= 0.
        verbose: Print each row as it is found.
        callback: Gets each `Row` as it is found.

    Returns:
        An `Evaluation`; print it, or take `.to_frame()`, `.to_markdown()`, `.to_dict()`.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
        RuntimeError: Where an attack returns an infeasible example.
    """
    check_number("eps", eps, low_allowed=False)
    p = parse_norm(norm)
    check_integer("batch_size", batch_size, low=1)
    check_integer("seed", seed, low=0)
    check_integer("flatness_steps", flatness_steps, low=0)
    target = make_target(
        model, x, y, eps=float(eps), p=p, bounds=bounds, batch_size=batch_size, seed=seed
    )

    def tell(row: Row) -> None:
        if verbose:
            print(f"{row.name}: {100 * row.accuracy:.1f} % ({row.seconds:.1f} s)", flush=True)
        if callback is not None:
            callback(row)

    with unharmed(target.module, target.device):
        return _evaluate(model, target, attacks, flatness_steps, tell)


def _evaluate(
    model: object,
    target: Target,
    attacks: object,
    flatness_steps: int,
    tell: Callable[[Row], None],
) -> Evaluation:
    to_run = resolve_attacks(attacks, target)
    for reserved in ("clean", "worst case"):
        if reserved in to_run:
            raise ValueError(f"attacks has the name {reserved!r}; allowed: any other name")
    start = time.perf_counter()
    clean = target.correct(target.x, target.y)
    correct, rows = {"clean": clean.numpy()}, []
    rows.append(Row.of("clean", correct["clean"], time.perf_counter() - start))
    tell(rows[-1])
    for name, attack in to_run.items():
        found, seconds = run_attack(name, attack, target, clean)
        correct[name] = found.numpy()
        rows.append(Row.of(name, correct[name], seconds))
        tell(rows[-1])
    correct["worst case"] = np.logical_and.reduce(list(correct.values()))
    rows.append(Row.of("worst case", correct["worst case"], sum(row.seconds for row in rows)))
    tell(rows[-1])
    # A classifier brings its own bounds.
    plain = {"bounds": target.bounds} if isinstance(model, nn.Module) else {}
    flatness = local_flatness(
        target.module if plain else model,
        target.x.numpy(),
        target.y.numpy(),
        eps=target.ball.eps,
        norm=target.ball.p,
        steps=flatness_steps,
        batch_size=target.batch_size,
        seed=target.seed,
        **plain,
    )
    return Evaluation(
        eps=target.ball.eps,
        norm="inf" if target.ball.p == math.inf else f"{target.ball.p:g}",
        rows=tuple(rows),
        correct=correct,
        flatness=np.asarray(flatness),
        flatness_steps=flatness_steps,
    )


def run_attack(name: str, attack: Attack, target: Target, clean: Tensor) -> tuple[Tensor, float]:
    """Whether each sample stays correct under the attack, shape (N,), and the seconds it took.

    Only the samples that are correct without an attack (`clean`) are attacked. Raises RuntimeError
    for examples of the wrong shape, outside the ball or the box, or not finite: counting them
    would overstate the attack.
    """
    survived = clean.clone()
    seed_global_generators(target.seed)
    start = time.perf_counter()
    if bool(clean.any()):
        x, y = target.x[clean], target.y[clean]
        adversarial = attack(x, y).to(x.dtype)
        check_feasible(name, adversarial, x, target.ball)
        survived[clean] = target.correct(adversarial, y)
    return survived, time.perf_counter() - start


def check_feasible(name: str, adversarial: Tensor, x: Tensor, ball: Ball) -> None:
    """Raise RuntimeError unless every example lies in the ball around x and in the box."""
    if adversarial.shape != x.shape:
        raise RuntimeError(
            f"attack {name!r} returned shape {tuple(adversarial.shape)} for inputs of shape "
            f"{tuple(x.shape)}"
        )
    if not bool(adversarial.isfinite().all()):
        raise RuntimeError(f"attack {name!r} returned NaN or infinite values")
    scale = max(float(x.abs().max()), ball.eps)
    summed = 1.0 if ball.p == math.inf else x[0].numel() ** (1 / ball.p)
    slack = BALL_SLACK * ball.eps + ROUNDING_ULPS * torch.finfo(x.dtype).eps * scale * summed
    largest = float(sample_norm(adversarial.double() - x.double(), ball.p).max())
    if largest > ball.eps + slack:
        raise RuntimeError(
            f"attack {name!r} returned an example at distance {largest:g} (norm {ball.p:g}); "
            f"allowed: at most eps, {ball.eps:g} (is the attack's own eps or norm another?)"
        )
    if not ball.box.contains(adversarial):
        raise RuntimeError(
            f"attack {name!r} returned values from {float(adversarial.min()):g} to "
            f"{float(adversarial.max()):g}, outside the valid box"
        )
