"""What `lfr_loss` makes of inputs and settings that do not fit the model, or hardly do."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from art_lfr import LFRLoss, lfr_loss, local_flatness


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_inputs_narrower_than_the_weights_are_widened(
    network: nn.Module, dtype: torch.dtype
) -> None:
    x = X.to(dtype)
    for found, expected in zip(
        lfr_loss(network, x, Y, eps=0.1), lfr_loss(network, x.float(), Y, eps=0.1), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("steps", [0, 2])
def test_inputs_of_a_wrong_shape_are_named(network: nn.Module, steps: int) -> None:
    settings = {"eps": 0.1, "steps": steps, "radius": 0.01}
    with pytest.raises(ValueError, match=r"x has shape \(6, 1, 2, 4\), on which the model fails"):
        lfr_loss(network, X[:, :, :2], Y, **settings)
    with pytest.raises(ValueError, match=r"The model said: mat1 and mat2"):
        LFRLoss(**settings)(network, X[:, :, :2], Y)


def test_an_error_that_is_not_of_the_inputs_stays_what_it_is(network: nn.Module) -> None:
    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("of the loss")

    with pytest.raises(RuntimeError, match="of the loss"):
        lfr_loss(network, X, Y, eps=0.1, loss=loss)


def test_integer_logits_are_named() -> None:
    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3].round().long()

    for call in (lfr_loss, local_flatness):
        with pytest.raises(TypeError, match=r"logits of type torch\.int64; allowed: floating"):
            call(Whole(), X, Y, eps=0.1)


def test_a_radius_of_a_few_roundings_is_warned_of_where_it_was_asked_for(
    network: nn.Module,
) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        for share in (1.0, 0.9, 0.8):  # the largest input differs from batch to batch
            lfr_loss(network, share * X, Y, eps=0.1, radius=1e-7)
        loss = LFRLoss(eps=0.1, radius=1e-7)
        for _ in range(3):
            loss(network, X, Y)
        lfr_loss(network, X, Y, eps=0.1)
    assert len(warned) == 2
    assert all("radius is 1e-07, a few roundings" in str(each.message) for each in warned)
    assert {each.filename for each in warned} == {__file__}


@pytest.mark.parametrize("measure", [lfr_loss, local_flatness])
def test_an_eps_in_another_unit_is_asked_about(measure):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, y = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    with pytest.warns(UserWarning, match="eps is 8, more than the whole range") as told:
        measure(network, x, y, eps=8, steps=1)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(network, x, y, eps=8, steps=1, bounds=None)
