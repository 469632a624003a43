"""A small network, images, and AutoAttack with few iterations, shared by its tests."""

from __future__ import annotations

import sys

import pyautoattack
import pytest
import torch
from torch import nn

from art_lfr.autoattack import backend
from art_lfr.autoattack.backend import make_suite

EPS = {"Linf": 0.02, "L2": 0.15, "L1": 0.6}


class Net(nn.Module):
    """A small ReLU network on 8x8 images in [0, scale]; random where `noise` is above 0."""

    def __init__(self, classes=10, scale=1.0, noise=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, classes)
        )
        self.scale, self.noise = scale, noise

    def forward(self, x):
        logits = self.layers(x / self.scale)
        return logits + self.noise * torch.randn_like(logits) if self.noise else logits


@pytest.fixture(scope="session")
def net():
    return Net


@pytest.fixture(scope="session")
def radii():
    return EPS


@pytest.fixture(scope="session")
def data():
    """18 images, of which three are errors without any attack."""
    x = torch.rand(18, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = Net()(x).argmax(dim=1)
    y[:3] = (y[:3] + 1) % 10
    return x, y


def shorten(suite):
    for attack in (suite.apgd, suite.apgd_targeted):
        attack.n_iter = attack.n_iter_orig = 5
    suite.fab.n_iter = 2
    suite.square.n_queries = 15
    return suite


@pytest.fixture
def short(monkeypatch):
    """`run_autoattack` with few iterations."""

    def make(*arguments, **keywords):
        suite, *rest = make_suite(*arguments, **keywords)
        return shorten(suite), *rest

    monkeypatch.setattr(backend, "make_suite", make)


@pytest.fixture(scope="session")
def short_suite():
    """Maker of pyautoattack's suite with few iterations."""

    def make(model, norm="Linf", version="standard", **settings):
        settings = {"eps": EPS[norm], "seed": 3, **settings}
        suite = pyautoattack.AutoAttack(model, norm=norm, version=version, **settings)
        suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 3
        for attack in (suite.apgd, suite.fab):
            attack.n_restarts = min(attack.n_restarts, 2)
        return shorten(suite)

    return make


@pytest.fixture
def first_on_path(tmp_path, monkeypatch):
    """A directory in which Python looks first; its `autoattack` hides any other for this test."""

    def forget():
        names = [name for name in sys.modules if name.partition(".")[0] == "autoattack"]
        return {name: sys.modules.pop(name) for name in names}

    monkeypatch.syspath_prepend(tmp_path)
    # RobustBench's tests, in the same process, have a stand-in for the package.
    before = forget()
    yield tmp_path
    forget()
    sys.modules.update(before)
