"""PGD with its every step recorded: what attack-failure indicators are computed from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from art_lfr.attacks.target import Target
from art_lfr.core.criterion import Criterion
from art_lfr.core.pgd import classify, projected_gradient_descent

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
