"""A small network on images of CIFAR-10's shape, and AutoAttack with few iterations."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn


class Net(nn.Module):
    """A few hundred weights, ten classes."""

    def __init__(self, classes=10):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(256, classes)
        )

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(scope="session")
def net():
    return Net


def shorten(suite):
    suite.apgd.n_iter = suite.apgd_targeted.n_iter = 4
    suite.fab.n_iter, suite.square.n_queries = 1, 8


@pytest.fixture
def short(monkeypatch):
    """AutoAttack with few iterations and one seed, whoever makes it."""
    from autoattack import AutoAttack

    set_version = AutoAttack.set_version

    def set_short_version(self, version="standard"):
        set_version(self, version)
        shorten(self)

    monkeypatch.setattr(AutoAttack, "set_version", set_short_version)
    monkeypatch.setattr(AutoAttack, "get_seed", lambda self: 7)
    return AutoAttack


def jpeg_images(path, count):
    """The first test images of the CIFAR-10 (JPEG copy)."""
    from PIL import Image

    with np.load(path) as arrays:
        bounds, raw = arrays["test_offsets"][: count + 1], arrays["test_jpeg"]
        files = [raw[bounds[i] : bounds[i + 1]].tobytes() for i in range(count)]
    images = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    return torch.tensor(images).permute(0, 3, 1, 2).contiguous().float() / 255


@pytest.fixture
def suite(net, short):
    """Maker of the stand-in for the original's suite; any arguments of its own."""

    def make(*arguments, **keywords):
        keywords = {"eps": 0.006, "device": "cpu", **keywords}
        made = short(*(arguments or (net(),)), **keywords)
        made.square.n_queries = 8
        return made

    return make


@pytest.fixture(scope="session")
def data():
    """16 images (N, 3, 32, 32), labels that the network gives to all but three.

    Synthetic, or real ones where ART_LFR_DATA names a directory with cifar10_jpeg.npz.
    """
    folder = os.environ.get("ART_LFR_DATA")
    if folder is None:
        generator = torch.Generator().manual_seed(1)
        coarse = torch.rand(16, 3, 8, 8, generator=generator)
        x = nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear").clamp(0, 1)
    else:
        x = jpeg_images(Path(folder) / "cifar10_jpeg.npz", 16)
    with torch.no_grad():
        y = Net()(x).argmax(dim=1)
    y[:3] = (y[:3] + 1) % 10
    return x, y
