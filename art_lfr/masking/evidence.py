"""What the masking checks look at, gathered once: which attack breaks which sample, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor

from art_lfr.attacks.named import run_attack
from art_lfr.attacks.target import Target, preserved
from art_lfr.attacks.unit_box import UnitBox
from art_lfr.autoattack.backend import FlagCollector, find_flags, suite_for
from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Ball
from art_lfr.core.gradients import input_gradient
from art_lfr.core.pgd import classify, projected_gradient_descent
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


class _Recorder:
    """Collects what each step of one batch shows."""

    def __init__(self, target: Target, labels: Tensor) -> None:
        self.target, self.labels = target, labels
        self.loss: list[Tensor] = []
        self.wrong: list[Tensor] = []
        self.zero: list[Tensor] = []

    def look(self, point: Tensor) -> None:
        """Loss and correctness at a point."""
        count = len(point)
        loss, correct, _ = classify(self.target.module, Criterion(None), point, self.labels, count)
        self.loss.append(loss.cpu())
        self.wrong.append(~correct.cpu())

    def watch(self, point: Tensor, gradient: Tensor) -> None:
        """A point before its step."""
        self.look(point)
        self.zero.append((gradient == 0).flatten(1).all(dim=1).cpu())


def trace_ascent(target: Target, x: Tensor, y: Tensor, *, steps: int) -> AscentTrace:
    """Run PGD, `steps` steps of 2.5 eps / steps from a random start, and record it."""
    ball = replace(target.ball, box=target.ball.box.to(target.device))
    generator = torch.Generator().manual_seed(target.seed)
    recorders = []
    for start in range(0, len(x), target.batch_size):
        batch = x[start : start + target.batch_size].to(target.device)
        labels = y[start : start + target.batch_size].to(target.device)
        recorder = _Recorder(target, labels)
        last = projected_gradient_descent(
            target.module,
            Criterion(None),
            batch,
            labels,
            ball=ball,
            steps=steps,
            step_size=STEP_SHARE * ball.eps / steps,
            start=ball.random_point(batch, generator),
            watch=recorder.watch,
        )
        recorder.look(last)
        recorders.append(recorder)
    return AscentTrace(
        loss=torch.cat([torch.stack(r.loss, dim=1) for r in recorders]),
        wrong=torch.cat([torch.stack(r.wrong, dim=1) for r in recorders]),
        zero_gradient=torch.cat([torch.stack(r.zero, dim=1) for r in recorders]),
    )


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
    here = replace(target, x=target.x[clean], y=target.y[clean])
    traces = {
        steps: trace_ascent(here, here.x, here.y, steps=steps)
        for steps in (SHORT_PGD, PGD, LONG_PGD)
    }
    single, apgd = _broken("FGSM", here), _broken("APGD-T", here)
    white = torch.stack([single, apgd, *(trace.broken for trace in traces.values())])
    return Evidence(
        traces=traces,
        single_step=single,
        apgd=apgd,
        white_box=white.any(dim=0),
        black_box=_black_box(here),
        noise=_random_noise(here),
        rising_eps=_rising_eps(here),
        transfer=None if surrogate is None else _transfer(here, surrogate),
        flags=flags_of(here),
    )


def _broken(attack: object, here: Target) -> Tensor:
    (found,) = resolve_attacks(attack, here)
    return ~run_attack(found, here, torch.ones(len(here.x), dtype=torch.bool)).correct


def _black_box(here: Target) -> dict[str, Tensor]:
    """Square, and SPSA (Uesato et al. 2018) where torchattacks, which has it, is installed."""
    found = {}
    if here.x.dim() == 4:
        found["Square"] = _broken("Square", here)
    if here.ball.p == math.inf and here.x.dim() == 4 and find_spec("torchattacks") is not None:
        import torchattacks

        unit_box = UnitBox.of(here.ball.box, "SPSA", "other bounds")
        spsa = torchattacks.SPSA(
            unit_box.module(here.module),
            eps=here.ball.eps / unit_box.width,
            nb_iter=SPSA_STEPS,
            nb_sample=SPSA_SAMPLES,
        )
        found["SPSA"] = _broken(spsa, here)
    return found


def _random_noise(here: Target) -> Tensor:
    """Samples that any of 100 random points breaks: half inside the ball, half at its edge."""
    generator = torch.Generator().manual_seed(here.seed)
    broken = torch.zeros(len(here.x), dtype=torch.bool)
    for draw in range(NOISE_DRAWS):
        point = here.ball.random_point(here.x, generator)
        if draw % 2 and here.ball.p == math.inf:
            signs = uniform_like(here.x, generator).sub(0.5).sign()
            point = here.ball.project(here.x + here.ball.eps * signs, here.x)
        broken |= ~here.correct(point, here.y)
    return broken


def _rising_eps(here: Target) -> dict[float, float]:
    """The share that PGD leaves at eps, 2 eps, 4 eps, ... until the ball covers the box."""
    box, size = here.ball.box, here.x[0].numel()
    covering = float((box.high - box.low).max()) * size ** (1 / here.ball.p)
    standing = torch.ones(len(here.x), dtype=torch.bool)
    left, eps = {}, here.ball.eps
    while bool(standing.any()):
        eps = min(eps, covering)
        wider = replace(here, ball=Ball(eps, here.ball.p, box))
        trace = trace_ascent(wider, here.x[standing], here.y[standing], steps=PGD)
        standing[standing.clone()] = ~trace.broken
        left[eps] = float(standing.double().mean())
        if eps >= covering:
            break
        eps *= 2
    return left


def _transfer(here: Target, surrogate: Target) -> Tensor:
    """Samples that PGD-40 examples for the surrogate break here."""
    (attack,) = resolve_attacks("PGD-40", replace(surrogate, x=here.x, y=here.y))
    with preserved(surrogate.module, surrogate.device):
        found = attack.run(here.x, here.y)
    return ~here.correct(torch.as_tensor(found), here.y)


def flags_of(here: Target) -> list[str]:
    """AutoAttack's warnings about the model, from its first batch."""
    collector = FlagCollector()
    suite, checks, _, unit_box, _ = suite_for(
        here, who="AutoAttack's checks", instead="other bounds"
    )
    x = unit_box.to_unit(here.x[: here.batch_size].to(here.device))
    y = here.y[: here.batch_size].to(here.device)
    find_flags(suite, checks, x, y, collector)
    checks.check_zero_gradients(
        input_gradient(suite.model, Criterion(None), x, y), logger=collector
    )
    return collector.flags
