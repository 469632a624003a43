"""Tests on a device: what is put there, and what is not."""

from __future__ import annotations

import torch
from placing import PlacedOn
from torch import nn

from art_lfr.core.geometry import Ball, Box

META = torch.device("meta")


def test_what_a_test_makes_is_on_the_device_and_what_the_package_makes_is_not() -> None:
    x = torch.full((2, 3), 0.5)
    with PlacedOn(META):
        layer, noise = nn.Linear(3, 2), torch.rand(3, generator=torch.Generator())
        leaf, here = torch.zeros(2, requires_grad=True), torch.ones(2, device="cpu")
        ball = Ball(0.1, torch.inf, Box.from_bounds((0.0, 1.0), x))
        point = ball.random_point(x, torch.Generator())
    assert layer.weight.is_meta
    assert noise.is_meta
    assert leaf.is_meta
    assert leaf.is_leaf
    assert leaf.requires_grad
    assert not here.is_meta
    assert not point.is_meta
    assert not torch.ones(1).is_meta


def test_weights_are_those_of_the_cpu() -> None:
    drawn = []
    for device in ("cpu", "cpu:0"):  # of which only the first is the device of a tensor
        torch.manual_seed(0)
        with PlacedOn(torch.device(device)):
            drawn.append([*nn.Linear(3, 2).parameters()])
    torch.testing.assert_close(*drawn, rtol=0, atol=0)
