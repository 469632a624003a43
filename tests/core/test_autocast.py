"""The ascent in bfloat16: which passes are, what it finds, and what is left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.geometry import Box, sample_norm
from art_lfr.core.gradients import input_gradient
from art_lfr.core.settings import LFRSettings
from art_lfr.loss import lfr_loss
from art_lfr.penalties import LocalFlatness, LossView

EPS = 0.1


def problem(scale: float = 1.0) -> tuple[nn.Sequential, Tensor, Tensor]:
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 3)
    ).eval()
    x = torch.rand(16, 1, 8, 8)
    with torch.no_grad():
        network[0].weight.mul_(3.0 / scale)
        network[4].weight.mul_(3.0)
    return network, scale * x, torch.arange(16) % 3


def found_point(network: nn.Module, x: Tensor, y: Tensor, **keywords: Any) -> Tensor:
    settings = LFRSettings(**{"eps": EPS, **keywords})
    bounds = (0.0, float(x.max()))
    view = LossView(network, Criterion(), Box.from_bounds(bounds, x), settings)
    start = LocalFlatness().start(view.ball, x, torch.Generator().manual_seed(0))
    point: Tensor = LocalFlatness().search(view, x, y, start).point
    return point


@pytest.mark.parametrize("estimator", ["finite-difference", "exact"])
def test_the_ascent_alone_is_in_bfloat16(estimator: str) -> None:
    network, x, y = problem()
    types: list[torch.dtype] = []
    network[4].register_forward_hook(lambda _, __, out: types.append(out.dtype))
    terms = lfr_loss(network, x, y, eps=EPS, steps=3, estimator=estimator, autocast=True)
    narrow = types.count(torch.bfloat16)
    assert types[:narrow] == [torch.bfloat16] * narrow
    # 3 steps: an upper end and the point itself in each, and the last point.
    assert narrow == {"finite-difference": 3 + 3 + 1, "exact": 4}[estimator]
    # Clean, a gradient at x', and both ends; or clean, and the gradient that is descended.
    assert types[narrow:] == [torch.float32] * (2 if estimator == "exact" else 4)
    terms.total.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())
    assert network(x).dtype == torch.float32


@pytest.mark.parametrize("every", [1, 2])
def test_it_finds_as_much_as_in_float32(every: int) -> None:
    network, x, y = problem()
    slopes = []
    for autocast in (False, True):
        point = found_point(network, x, y, renew_every=every, autocast=autocast)
        slopes.append(sample_norm(input_gradient(network, Criterion(), point, y), 1.0).mean())
    at_x = sample_norm(input_gradient(network, Criterion(), x, y), 1.0).mean()
    assert slopes[0] > 1.2 * at_x
    assert float(slopes[1]) == pytest.approx(float(slopes[0]), rel=0.03)
    assert not torch.equal(slopes[0], slopes[1])


def test_a_radius_that_bfloat16_would_round_away_is_raised() -> None:
    network, x, y = problem(scale=255.0)
    x = 128 + x / 2  # next to 255, neighbours in bfloat16 are 1 apart
    recorded: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, args: recorded.append(args[0].detach()))
    found_point(network, x, y, eps=2.0, steps=1, radius=0.1, autocast=True)
    start, shifted = recorded[:2]
    changed = start.bfloat16() != shifted.bfloat16()
    assert changed.float().mean() > 0.9
    del recorded[:]
    found_point(network, x, y, eps=2.0, steps=1, radius=0.1)
    assert float((recorded[1] - recorded[0]).abs().max()) == pytest.approx(0.1, rel=1e-3)


def test_an_autocast_of_the_user_stays_on(device: torch.device) -> None:
    network, x, y = problem()
    types: list[torch.dtype] = []
    network[4].register_forward_hook(lambda _, __, out: types.append(out.dtype))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        terms = lfr_loss(network, x, y, eps=EPS, steps=1)
    assert set(types) == {torch.bfloat16}
    # The difference of two losses is taken in float32 all the same.
    assert terms.flatness.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_logits_are_widened(dtype: torch.dtype) -> None:
    assert logits_of(torch.zeros(2, 3, dtype=dtype)).dtype == torch.float32
    assert logits_of(torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("value", [1, "bfloat16", None])
def test_it_is_true_or_false(value: object) -> None:
    with pytest.raises(TypeError, match=f"autocast is {value!r}; allowed: True or False"):
        LFRSettings(eps=EPS, autocast=value)
