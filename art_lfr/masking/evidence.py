"""What the masking checks look at, gathered once: which attack breaks which sample, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from art_lfr.attacks.named import run_attack
from art_lfr.attacks.target import Target, UnitBox, preserved
from art_lfr.autoattack.backend import FlagCollector, find_flags, suite_for
from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Ball
from art_lfr.core.gradients import input_gradient
from art_lfr.core.pgd import classify, projected_gradient_descent
from art_lfr.core.progress import passes_of
from art_lfr.core.randomness import uniform_like
from art_lfr.evaluation.resolve import resolve_attacks

SHORT_PGD, PGD, LONG_PGD = 10, 40, 200
NOISE_DRAWS = 100
# 2 * 64 queries for each of 10 steps: as many as Square has.
SPSA_STEPS, SPSA_SAMPLES = 10, 64
# Losses of float32 logits differ by rounding where nothing moves.
LOSS_ROUNDING = 1e-5
# Madry et al. (2018): 2.5 eps in all, so that PGD can cross the ball and come back.
STEP_SHARE = 2.5


@dataclass(frozen=True)
class AscentTrace:
    """Steps 0..K of PGD on N samples, each array of shape (N, K + 1).

    `loss` is the cross-entropy, `wrong` says where the sample is misclassified, `zero_gradient`
    (N, K) where the whole gradient was zero. The indicators follow Pintor et al., "Indicators of
    Attack Failure" (2022).
    """

    loss: Tensor
    wrong: Tensor
    zero_gradient: Tensor

    @property
    def broken(self) -> Tensor:
        """Samples that any step broke, shape (N,)."""
        return self.wrong.any(dim=1)

    @property
    def silent_successes(self) -> Tensor:
        """Samples broken on the way whose last step is no success, shape (N,)."""
        return self.broken & ~self.wrong[:, -1]

    @property
    def share_of_zero_gradients(self) -> float:
        """Share of the steps, on samples not yet broken, at which the gradient was zero."""
        standing = ~self.wrong[:, :-1]
        steps = int(standing.sum())
        return float((self.zero_gradient & standing).sum()) / steps if steps else 0.0

    @property
    def share_of_unmoved_losses(self) -> float:
        """Share of the unbroken samples whose loss ended no higher than it began."""
        standing = ~self.broken
        rise = self.loss[:, -1] - self.loss[:, 0]
        stuck = rise <= LOSS_ROUNDING * (1 + self.loss[:, 0].abs())
        return float((stuck & standing).sum()) / max(1, int(standing.sum()))


def trace_ascent(target: Target, x: Tensor, y: Tensor, *, steps: int) -> AscentTrace:
    """Run PGD, `steps` steps of 2.5 eps / steps from a random start, and record it."""
    ball = replace(target.ball, box=target.ball.box.to(target.device))
    generator = torch.Generator().manual_seed(target.seed)
    size, device = target.batch_size, target.device
    batches = list(zip(torch.split(x, size), torch.split(y, size), strict=True))
    about = f"PGD-{steps} at eps {ball.eps:.3g}, {len(x)} images"
    # At each step one pass for the gradient and one to look.
    total = 2 * steps * len(batches)
    with passes_of(target.module, about, shown=target.progress, total=total):
        traces = [
            _trace_batch(target.module, a.to(device), b.to(device), ball, steps, generator)
            for a, b in batches
        ]
    return AscentTrace(*(torch.cat(parts) for parts in zip(*traces, strict=True)))


def _trace_batch(
    module: nn.Module, x: Tensor, y: Tensor, ball: Ball, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The three arrays of an `AscentTrace`, for one batch."""
    losses, wrong, zero = [], [], []

    def look(point: Tensor) -> None:
        loss, correct, _ = classify(module, Criterion(None), point, y, len(point))
        losses.append(loss.cpu())
        wrong.append(~correct.cpu())

    def watch(point: Tensor, gradient: Tensor) -> None:
        look(point)
        zero.append((gradient == 0).flatten(1).all(dim=1).cpu())

    last = projected_gradient_descent(
        module,
        Criterion(None),
        x,
        y,
        ball=ball,
        steps=steps,
        step_size=STEP_SHARE * ball.eps / steps,
        start=ball.random_point(x, generator),
        watch=watch,
    )
    look(last)
    return torch.stack(losses, dim=1), torch.stack(wrong, dim=1), torch.stack(zero, dim=1)


@dataclass(frozen=True)
class Evidence:
    """Which of the n clean samples an attack breaks, booleans of shape (n,), and traces of PGD.

    `white_box` is what any attack with gradients of the model breaks; `rising_eps` maps radii to
    the share that PGD leaves there; `transfer` is None without a surrogate.
    """

    traces: dict[int, AscentTrace]
    single_step: Tensor
    apgd: Tensor
    white_box: Tensor
    black_box: dict[str, Tensor]
    noise: Tensor
    rising_eps: dict[float, float]
    transfer: Tensor | None
    flags: Sequence[str]


def gather_evidence(target: Target, surrogate: Target | None, clean: Tensor) -> Evidence:
    """Run everything that the checks look at, on the samples that are correct without an attack."""
    target = replace(target, x=target.x[clean], y=target.y[clean])
    traces = {
        steps: trace_ascent(target, target.x, target.y, steps=steps)
        for steps in (SHORT_PGD, PGD, LONG_PGD)
    }
    single, apgd = _broken("FGSM", target), _broken("APGD-T", target)
    white = torch.stack([single, apgd, *(trace.broken for trace in traces.values())])
    return Evidence(
        traces=traces,
        single_step=single,
        apgd=apgd,
        white_box=white.any(dim=0),
        black_box=_black_box(target),
        noise=_random_noise(target),
        rising_eps=_rising_eps(target),
        transfer=None if surrogate is None else _transfer(target, surrogate),
        flags=flags_of(target),
    )


def _broken(attack: object, target: Target) -> Tensor:
    (named,) = resolve_attacks(attack, target)
    return ~run_attack(named, target, torch.ones(len(target.x), dtype=torch.bool)).correct


def _black_box(target: Target) -> dict[str, Tensor]:
    """Square, and SPSA (Uesato et al. 2018) where torchattacks, which has it, is installed."""
    if target.x.dim() != 4:
        return {}
    broken = {"Square": _broken("Square", target)}
    if target.ball.p == math.inf and find_spec("torchattacks") is not None:
        import torchattacks

        unit_box = UnitBox.of(target.ball.box, "SPSA", "other bounds")
        spsa = torchattacks.SPSA(
            unit_box.module(target.module),
            eps=target.ball.eps / unit_box.width,
            nb_iter=SPSA_STEPS,
            nb_sample=SPSA_SAMPLES,
        )
        broken["SPSA"] = _broken(spsa, target)
    return broken


def _random_noise(target: Target) -> Tensor:
    """Samples that any of 100 random points breaks: half inside the ball, half at its edge."""
    generator = torch.Generator().manual_seed(target.seed)
    broken = torch.zeros(len(target.x), dtype=torch.bool)
    for draw in range(NOISE_DRAWS):
        point = target.ball.random_point(target.x, generator)
        if draw % 2 and target.ball.p == math.inf:
            signs = uniform_like(target.x, generator).sub(0.5).sign()
            point = target.ball.project(target.x + target.ball.eps * signs, target.x)
        broken |= ~target.correct(point, target.y)
    return broken


def _rising_eps(target: Target) -> dict[float, float]:
    """The share that PGD leaves at eps, 2 eps, 4 eps, ... until the ball covers the box."""
    box, size = target.ball.box, target.x[0].numel()
    covering = float((box.high - box.low).max()) * size ** (1 / target.ball.p)
    standing = torch.ones(len(target.x), dtype=torch.bool)
    left, eps = {}, target.ball.eps
    while bool(standing.any()):
        eps = min(eps, covering)
        wider = replace(target, ball=Ball(eps, target.ball.p, box))
        trace = trace_ascent(wider, target.x[standing], target.y[standing], steps=PGD)
        standing[standing.clone()] = ~trace.broken
        left[eps] = float(standing.double().mean())
        if eps >= covering:
            break
        eps *= 2
    return left


def _transfer(target: Target, surrogate: Target) -> Tensor:
    """Samples that PGD-40 examples for the surrogate break."""
    (attack,) = resolve_attacks("PGD-40", replace(surrogate, x=target.x, y=target.y))
    with preserved(surrogate.module, surrogate.device):
        examples = attack.run(target.x, target.y)
    return ~target.correct(torch.as_tensor(examples), target.y)


def flags_of(target: Target) -> list[str]:
    """AutoAttack's warnings about the model, from its first batch."""
    collector = FlagCollector()
    suite, checks, _, unit_box, _ = suite_for(
        target, who="AutoAttack's checks", instead="other bounds"
    )
    x = unit_box.to_unit(target.x[: target.batch_size].to(target.device))
    y = target.y[: target.batch_size].to(target.device)
    find_flags(suite, checks, x, y, collector)
    checks.check_zero_gradients(
        input_gradient(suite.model, Criterion(None), x, y), logger=collector
    )
    return collector.flags
