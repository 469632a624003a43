"""`torch.inference_mode`, in which Lightning validates, changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from art_lfr import evaluate, lfr_loss, local_flatness
from art_lfr.autoattack import run_autoattack
from art_lfr.check import check_model
from art_lfr.evaluation import accuracy_curve

Call = Callable[[nn.Module, Tensor, Tensor], object]
CALLS: dict[str, Call] = {
    "flatness": lambda m, x, y: local_flatness(m, x, y, eps=0.1).tolist(),
    "loss": lambda m, x, y: [float(t.detach()) for t in lfr_loss(m, x, y, eps=0.1)],
    "evaluate": lambda m, x, y: evaluate(m, x, y, eps=0.1, attacks=["FGSM"]).to_dict()["flatness"],
    "curve": lambda m, x, y: accuracy_curve(m, x, y, eps=[0.05, 0.1], attacks="PGD-40").summary(),
    "autoattack": lambda m, x, y: run_autoattack(m, x, y, eps=0.1).accuracies,
    "check": check_model,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_results_are_the_same(call: Call) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.BatchNorm1d(5)).eval()
    x, y = torch.rand(8, 1, 6, 6), torch.arange(8) % 5
    expected = call(model, x, y)
    with torch.inference_mode():
        assert call(model, x.clone(), y.clone()) == expected
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        assert call(model, x, y) == expected


def test_weights_made_in_it_are_named() -> None:
    with torch.inference_mode():
        model = nn.Linear(6, 3)
    x, y = torch.rand(4, 6), torch.zeros(4, dtype=torch.long)
    for call in (CALLS["flatness"], CALLS["loss"], CALLS["evaluate"]):
        with pytest.raises(ValueError, match=r"made in torch\.inference_mode.*; allowed"):
            call(model, x, y)
