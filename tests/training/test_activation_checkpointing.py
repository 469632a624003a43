"""Networks that recompute activations (torch.utils.checkpoint) train as others do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Box
from art_lfr.core.settings import LFRSettings
from art_lfr.loss import lfr_loss
from art_lfr.training.step import Objective


class Blocks(nn.Module):
    """Two blocks with dropout and a head, the blocks recomputed in the backward pass or not."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recompute = recompute
        self.calls = 0
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.2)) for _ in range(2)
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = (
                checkpoint(self._block, block, x, use_reentrant=False)
                if self.recompute
                else block(x)
            )
        return self.head(x)

    def _block(self, block: nn.Module, x: Tensor) -> Tensor:
        self.calls += 1
        return block(x)


def trained(recompute: bool, estimator: str, largest: int | None) -> Blocks:
    network = Blocks(recompute).double().train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    box = Box.from_bounds((0.0, 1.0), torch.zeros(1, 6, dtype=torch.float64))
    objective = Objective(network, Criterion(), lambda x: box)
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    for _ in range(5):
        objective.step(
            torch.rand(8, 6, dtype=torch.float64),
            torch.arange(8) % 3,
            optimizer=optimizer,
            settings=LFRSettings(eps=0.1, steps=3, estimator=estimator),
            generator=generator,
            max_grad_norm=None,
            max_physical_batch_size=largest,
        )
    return network


@pytest.mark.parametrize("estimator", ["finite-difference", "exact"])
@pytest.mark.parametrize("largest", [None, 3])
def test_recomputed_activations_give_the_same_weights(estimator: str, largest: int | None) -> None:
    plain, recomputing = (trained(recompute, estimator, largest) for recompute in (False, True))
    assert recomputing.calls > 0
    assert plain.calls == 0
    for a, b in zip(plain.parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", ["finite-difference", "exact"])
def test_the_loss_recomputes_too(estimator: str) -> None:
    x, y = torch.rand(8, 6, dtype=torch.float64), torch.arange(8) % 3
    gradients = []
    for recompute in (False, True):
        network = Blocks(recompute).double().eval()
        lfr_loss(network, x, y, eps=0.1, estimator=estimator).total.backward()
        gradients.append([p.grad for p in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
