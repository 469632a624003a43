"""The batches of an attack that are left to another process cost no random number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from art_lfr.attacks.target import make_target, preserved
from art_lfr.core.processes import Processes
from art_lfr.core.randomness import seed_global_generators
from art_lfr.evaluation.resolve import resolve_attacks


class OneOfTwo(Processes):
    """Does what one of two processes would; what the other one would tell is missing."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.size = rank, 2

    def dealt(self, count, work, skip=lambda index: None):  # type: ignore[no-untyped-def]
        found = [work(index) if index % 2 == self.rank else skip(index) for index in range(count)]
        return [result for result in found if result is not None]


@pytest.mark.parametrize(
    ("name", "norm"),
    [("PGD-40", norm) for norm in (math.inf, 2, 1)]
    + [(name, math.inf) for name in ("PGD", "MI-PGD", "FGSM", "Square")]
    # Here APGD changes its own number of steps as it goes.
    + [("APGD-CE", 1)],
)
def test_a_batch_is_attacked_alike_whoever_attacks_the_one_before(
    name: str, norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("art_lfr.autoattack.run.SQUARE_QUERIES", 30)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
    x = torch.rand(11, 1, 8, 8)
    target = make_target(network, x, network(x).argmax(dim=1), eps=0.1, norm=norm, batch_size=3)

    def examples(processes: Processes) -> torch.Tensor:
        one = make_target(
            network, x, target.y, eps=0.1, norm=norm, batch_size=3, processes=processes
        )
        (attack,) = resolve_attacks(name, one)
        assert attack.dealt
        seed_global_generators(0)
        with preserved(one.module, one.device):
            found = attack.run(one.x, one.y)
        return found if isinstance(found, torch.Tensor) else found.adversarial

    batches = torch.split(examples(Processes.single()), 3)
    for rank in (0, 1):
        assert torch.equal(examples(OneOfTwo(rank)), torch.cat(batches[rank::2]))
