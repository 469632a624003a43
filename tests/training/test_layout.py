"""Convolutions' weights in channels-last order: when, and what is left of it afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from art_lfr.errors import UsageError
from art_lfr.models import BUILT_IN
from art_lfr.training.layout import (
    channels_last,
    check_takes_channels_last,
    gains_by_channels_last,
    takes_channels_last,
)


class Viewed(nn.Module):
    """A network whose view of a convolution's output joins channels with pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 64, 3), nn.Linear(64 * 30 * 30, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).view(len(x), -1))
        return logits


class ByMemory(Viewed):
    """One that reads an output in the order in which it lies."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        logits: Tensor = self.head(features.as_strided((len(x), 57600), (57600, 1)))
        return logits


@pytest.mark.parametrize(
    ("name", "shape", "gains"),
    [
        ("digits-cnn", (1, 8, 8), False),
        ("small-cnn", (1, 28, 28), False),
        ("paper-cnn", (1, 28, 28), True),
        ("narrow-resnet", (3, 32, 32), True),
        ("resnet-20", (3, 32, 32), True),
    ],
)
def test_large_networks_gain(name: str, shape: tuple[int, ...], gains: bool) -> None:
    assert gains_by_channels_last(BUILT_IN[name](0), torch.rand(4, *shape)) is gains


@pytest.mark.parametrize("make", [Viewed, ByMemory])
def test_a_network_that_does_not_take_it_is_left_alone(make: type[nn.Module]) -> None:
    model, x = make(), torch.rand(4, 3, 32, 32)
    assert not takes_channels_last(model, x)
    assert not gains_by_channels_last(model, x)
    with pytest.raises(UsageError, match="channels_last is True with a network that does not"):
        check_takes_channels_last(model, x)
    assert all(weight.is_contiguous() for weight in model.parameters())


def test_flat_data_and_compiled_networks_are_left_alone() -> None:
    assert not gains_by_channels_last(nn.Linear(4, 3), torch.rand(4, 4))
    # As `torch.compile` wraps it, which in torch 2.2 takes the hooks of all optimizers away.
    compiled = nn.Sequential(BUILT_IN["resnet-20"](0))
    compiled._orig_mod = compiled[0]
    assert not gains_by_channels_last(compiled, torch.rand(4, 3, 32, 32))


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_afterwards_weights_lie_where_they_lay_with_what_has_been_learnt(
    make: type[torch.optim.Optimizer],
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    optimizer = make(
        model.parameters(), lr=0.1, **({"momentum": 0.9} if "SGD" in str(make) else {})
    )
    held = model[0].weight.detach()
    x = torch.rand(2, 3, 8, 8)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()

    step()  # so that the optimizer keeps something of before
    before = held.clone()
    with channels_last(model, optimizer):
        weight = model[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last)
        kept = [v for v in optimizer.state[weight].values() if v.shape == weight.shape]
        assert len(kept) >= 1
        assert all(v.is_contiguous(memory_format=torch.channels_last) for v in kept)
        step()
    assert model[0].weight.data_ptr() == held.data_ptr()
    assert not torch.equal(held, before)
    assert torch.equal(held, model[0].weight)
    kept = [v for v in optimizer.state[model[0].weight].values() if v.shape == held.shape]
    assert all(v.is_contiguous() for v in [*kept, model[0].weight.grad, model[0].weight])


def test_weights_that_share_memory_stay_together() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    model[1].weight.data = model[0].weight.data
    assert not gains_by_channels_last(model, torch.rand(4, 8, 64, 64))
    assert not takes_channels_last(model, torch.rand(4, 8, 64, 64))


class ViewedInTraining(Viewed):
    """Its view of the weight is taken in train mode only."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.features.weight.view(64, -1)
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


def test_train_mode_is_tried_too_and_leaves_nothing_behind() -> None:
    model, x = ViewedInTraining(), torch.rand(4, 3, 32, 32)
    assert not takes_channels_last(model, x)
    drawing = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Flatten())
    state, mean = torch.get_rng_state(), drawing[1].running_mean.clone()
    assert takes_channels_last(drawing, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawing[1].running_mean, mean)


def test_an_optimizer_that_is_not_torchs_keeps_weights_as_they_are() -> None:
    class Own(torch.optim.SGD):
        pass

    model = BUILT_IN["resnet-20"](0)
    x = torch.rand(4, 3, 32, 32)
    assert gains_by_channels_last(model, x, torch.optim.SGD(model.parameters(), 0.1))
    assert not gains_by_channels_last(model, x, Own(model.parameters(), 0.1))
