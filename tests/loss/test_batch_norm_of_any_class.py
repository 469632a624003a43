"""The penalty's dual vector is of the mode in which the penalty is, whatever the layers are."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from art_lfr import LFRLoss, lfr_loss
from art_lfr.core.modes import ModeComparison


class ByHand(nn.Module):
    """BatchNorm as repositories write it, with `F.batch_norm` over buffers of its own names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        return F.batch_norm(x, mean, variance, self.scale, self.shift, self.training, 0.1, 1e-5)


class Replacing(ByHand):
    """Puts new buffers in place of the old ones."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            self.mean = 0.9 * self.mean + 0.1 * mean.detach()
            self.variance = 0.9 * self.variance + 0.1 * variance.detach()
        scale = self.scale / (variance + 1e-5).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + self.shift[:, None, None]


class WithoutBuffers(ByHand):
    """Nothing moves: only the outputs tell."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.mean.clone(), self.variance.clone()
        return F.batch_norm(x, mean, variance, self.scale, self.shift, self.training, 0.1, 1e-5)


def scripted(channels: int) -> nn.Module:
    with warnings.catch_warnings():  # TorchScript is deprecated, and in use
        warnings.simplefilter("ignore")
        layer: nn.Module = torch.jit.script(nn.BatchNorm2d(channels))
    return layer


def flatness(norm: nn.Module, x: Tensor, y: Tensor, **keywords: object) -> float:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Identity(), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(4 * 16, 3))
    model[1] = norm
    found = lfr_loss(model, x, y, eps=0.1, steps=2, radius=1e-3, **keywords).flatness  # type: ignore[arg-type]
    return float(found.detach())


@pytest.mark.parametrize("make", [ByHand, Replacing, WithoutBuffers, scripted])
def test_it_is_as_large_as_with_torchs_own(
    make: Callable[[int], nn.Module], batch: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    x, y = batch(16, 1, 6, 6, dtype=torch.float32)
    expected = flatness(nn.BatchNorm2d(4), x, y)
    assert flatness(make(4), x, y) == pytest.approx(expected, rel=1e-4)
    assert flatness(nn.BatchNorm2d(4).eval(), x, y) != pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("make", [ByHand, Replacing, scripted])
def test_eval_statistics_are_taken_where_they_are_asked_for(
    make: Callable[[int], nn.Module], batch: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    x, y = batch(16, 1, 6, 6, dtype=torch.float32)
    expected = flatness(nn.BatchNorm2d(4), x, y, batch_norm="eval")
    assert flatness(make(4), x, y, batch_norm="eval") == pytest.approx(expected, rel=1e-4)
    assert flatness(nn.BatchNorm2d(4), x, y) != pytest.approx(expected, rel=0.05)


class Counted(nn.Module):
    """Counts its passes; with `depends` it is another function in training."""

    def __init__(self, depends: bool) -> None:
        super().__init__()
        self.linear, self.depends, self.passes = nn.Linear(6, 3), depends, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.linear(x) * (2.0 if self.depends and self.training else 1.0)


@pytest.mark.parametrize("depends", [False, True])
def test_it_looks_once_and_pays_for_what_it_found(
    depends: bool, batch: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    x, y = batch(4, 6, dtype=torch.float32)
    model, loss, passes = Counted(depends), LFRLoss(eps=0.1, steps=1), []
    for _ in range(3):
        before = model.passes
        loss(model, x, y)
        passes.append(model.passes - before)
    # Three gradients of the ascent, the clean pass, both ends; and the gradient at the end.
    cost = 3 + 1 + 2 + depends
    assert passes == [cost + 1, cost, cost]


def test_it_looks_again_where_something_has_changed() -> None:
    comparison, x = ModeComparison(), torch.rand(4, 6)
    dependent, other = Counted(True), Counted(False)
    seen = []
    for model, training in (
        (dependent, True),
        (other, True),
        (dependent, True),
        (dependent, False),
    ):
        comparison.clean_pass(model.train(training), x)
        seen.append(comparison.differs)
    assert seen == [True, False, True, False]
    dependent.train().depends = False
    comparison.clean_pass(dependent, x)
    dependent.depends = True
    comparison.clean_pass(dependent, x)
    assert not comparison.differs
    comparison.forget()
    comparison.clean_pass(dependent, x)
    assert comparison.differs
