"""A finite-difference radius that rounding swallows is refused, one near it is warned of."""

from __future__ import annotations

import pytest
import torch

from art_lfr import lfr_loss, local_flatness
from art_lfr.core.settings import LFRSettings


@pytest.mark.parametrize(
    ("radius", "scale", "dtype", "verdict"),
    [
        (1e-8, 1.0, torch.float32, "refused"),
        (1e-8, 1.0, torch.float64, "taken"),
        (1e-7, 1.0, torch.float32, "warned"),
        (1e-5, 1.0, torch.float32, "taken"),
        (1e-5, 255.0, torch.float32, "refused"),
        (2.0, 255.0, torch.float32, "taken"),
        (1e-3, 1.0, torch.bfloat16, "refused"),
        (0.25 * 8 / 255, 1.0, torch.bfloat16, "warned"),
        (0.1, 1.0, torch.bfloat16, "taken"),
    ],
)
def test_verdicts(radius: float, scale: float, dtype: torch.dtype, verdict: str) -> None:
    x = scale * torch.ones(2, 6, dtype=dtype)
    settings = LFRSettings(eps=0.1, radius=radius)
    if verdict == "refused":
        with pytest.raises(ValueError, match="less than the rounding of inputs"):
            settings.check_radius(x)
    else:
        assert (settings.check_radius(x) is None) == (verdict == "taken")


def test_it_is_not_looked_at_where_it_is_not_used() -> None:
    x = torch.ones(2, 6)
    assert LFRSettings(eps=0.1, radius=1e-8, lam=0.0).check_radius(x) is None
    assert LFRSettings(eps=0.1, radius=1e-8, estimator="exact").check_radius(x) is None


def test_the_loss_and_the_measure_refuse_it() -> None:
    model, x, y = torch.nn.Linear(6, 3), torch.rand(4, 6), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match="radius is 1e-08"):
        lfr_loss(model, x, y, eps=0.1, radius=1e-8)
    with pytest.raises(ValueError, match="radius is 1e-08"):
        local_flatness(model, x, y, eps=0.1, radius=1e-8)
    # The default of a ball that is as small: what is found is the gradient at x.
    assert local_flatness(model, x, y, eps=1e-8).shape == (4,)
