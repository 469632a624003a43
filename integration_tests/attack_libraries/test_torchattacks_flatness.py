"""LFR's inner maximiser as an attack of torchattacks."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from art_lfr import local_flatness
from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import sample_norm
from art_lfr.core.gradients import input_gradient
from art_lfr.core.randomness import RandomState
from art_lfr.models import digits_cnn

pytest.importorskip(
    "torchattacks", reason='torchattacks is not installed: pip install "art-lfr[torchattacks]"'
)
LocalFlatnessAttack = importlib.import_module("art_lfr.torchattacks").LocalFlatnessAttack
CPU = torch.device("cpu")


def flatness(model, x, y, q):
    model.eval()
    return sample_norm(input_gradient(model, Criterion(), x, y), q)


@pytest.mark.parametrize(
    ("norm", "p", "eps"),
    [("Linf", np.inf, 0.1), ("L2", 2, 0.5), ("L1", 1, 2.0), (np.inf, np.inf, 0)],
)
@pytest.mark.parametrize("estimator", ["finite-difference", "exact"])
def test_the_point_found_is_less_flat_and_in_the_ball(robust, images, norm, p, eps, estimator):
    x, y = images
    attack = LocalFlatnessAttack(robust, eps, steps=5, norm=norm, estimator=estimator)
    found = attack(x, y)
    q = {np.inf: 1, 2: 2, 1: np.inf}[p]
    gain = flatness(robust, found, y, q) / flatness(robust, x, y, q)
    assert (gain >= 1).all()
    assert (gain.mean() > 1.2) == (eps > 0)
    assert (sample_norm(found - x, p) <= eps * (1 + 1e-4)).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_it_finds_what_the_measure_finds(robust, images):
    x, y = images
    robust.eval()
    found = LocalFlatnessAttack(robust, eps=0.1, steps=7, seed=3)(x, y)
    expected = local_flatness(robust, x, y, eps=0.1, steps=7, seed=3)
    torch.testing.assert_close(flatness(robust, found, y, 1), expected)


class Step(nn.Module):
    """A loss that is steep at some images, and constant everywhere else."""

    def __init__(self, at):
        super().__init__()
        self.at = nn.Parameter(at)

    def forward(self, x):
        value = torch.tanh(1e6 * (x - self.at)).flatten(1).mean(dim=1)
        return torch.stack([value, -value], dim=1)


def test_a_point_flatter_than_the_image_is_not_returned(images):
    """The ascent starts beside the image, where this loss is flat."""
    x = 0.5 * images[0] + 0.25
    assert torch.equal(LocalFlatnessAttack(Step(x.clone()), eps=0.1, steps=3)(x, images[1] % 2), x)


def test_its_settings_can_be_changed_as_torchattacks_users_do(robust, images):
    attack = LocalFlatnessAttack(robust, eps=0.1, steps=2)
    attack.eps, attack.alpha = 0.01, 0.001
    # Two steps and the noise of the start; the default would reach eps.
    assert float((attack(*images) - images[0]).abs().max()) < 0.008
    attack.alpha = 0.0
    with pytest.raises(ValueError, match=r"alpha is 0\.0; allowed: a finite number > 0, or None"):
        attack(*images)
    with pytest.raises(ValueError, match="Targeted mode is not supported"):
        attack.set_mode_targeted_by_label()
    with pytest.raises(ValueError, match=r"norm is .L7.; allowed: inf, 2 and 1, or Linf, L2"):
        LocalFlatnessAttack(robust, norm="L7")


def test_normalisation_set_by_the_user(images):
    """The network takes normalised images: to the attack they are what it normalises itself."""
    x, y = images
    network = digits_cnn()
    whole = nn.Sequential(_Normalise(0.3, 0.4), network)
    attack = LocalFlatnessAttack(network, eps=0.1, steps=3)
    attack.set_normalization_used([0.3], [0.4])
    expected = LocalFlatnessAttack(whole, eps=0.1, steps=3)(x, y)
    torch.testing.assert_close(attack((x - 0.3) / 0.4, y), (expected - 0.3) / 0.4)
    with pytest.raises(ValueError, match="y has labels"):
        attack((x - 0.3) / 0.4, y + 100)
    assert attack._normalization_applied is True


class _Normalise(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x):
        return (x - self.mean) / self.std


def test_nothing_is_left_changed(robust, images, preserved):
    attack = LocalFlatnessAttack(robust)
    before, kept = RandomState.capture(CPU), images[0].clone()
    with preserved(robust, attack):
        found = attack(*images)
    assert not before.differs_from(RandomState.capture(CPU))
    assert torch.equal(images[0], kept)
    assert found.grad_fn is None
    assert torch.equal(attack(*images), found)


def test_save_and_load(robust, images, tmp_path, capsys):
    attack = LocalFlatnessAttack(robust, eps=0.1, steps=2)
    loader = DataLoader(TensorDataset(*images), batch_size=3)
    attack.save(loader, save_path=str(tmp_path / "found.pt"), verbose=False)
    loaded = next(iter(attack.load(str(tmp_path / "found.pt"))))
    first = attack(images[0][:3], images[1][:3])
    assert torch.equal(loaded[0][:3], first)
    assert torch.equal(loaded[1], images[1])
