"""What the losses take for labels, beside the forms that every function takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from art_lfr.core.criterion import Criterion
from art_lfr.core.samples import class_labels, loss_targets
from art_lfr.loss import lfr_loss
from art_lfr.measure import local_flatness

X = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 1])
SOFT = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3]])


class Places(nn.Module):
    """Three classes at each of two places: outputs (N, 3, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).reshape(-1, 3, 2)


def clean(model: nn.Module, y: Any, loss: Any = None) -> float:
    return lfr_loss(model, X, y, eps=0.1, steps=1, loss=loss).clean.item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rows_of_probabilities(dtype: torch.dtype) -> None:
    model = nn.Linear(6, 3)
    expected = functional.cross_entropy(model(X), SOFT).item()
    assert clean(model, SOFT.to(dtype).to(torch.float32)) == pytest.approx(expected, rel=1e-2)
    assert clean(model, SOFT.double().cpu().numpy().astype(np.float32)) == pytest.approx(expected)
    for name in ("weighted", "smoothed"):
        weight = torch.tensor([1.0, 2.0, 3.0]) if name == "weighted" else None
        loss = nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1 if weight is None else 0.0)
        assert clean(model, SOFT, loss) == pytest.approx(loss(model(X), SOFT).item())


@pytest.mark.parametrize(
    "row", [[0.25, 0.25, 0.25], [2.0, -1.0, 0.0], [float("nan"), 0.5, 0.5], [0.0, 0.0, 0.0]]
)
def test_rows_that_are_no_probabilities(row: list[float]) -> None:
    y = torch.cat([SOFT[:3], torch.tensor([row])])
    for call in (lfr_loss, local_flatness):
        with pytest.raises(ValueError, match=r"y has shape .* and the row \[.*allowed: .*rows"):
            call(nn.Linear(6, 3), X, y, eps=0.1)  # type: ignore[operator]


def test_labels_of_places() -> None:
    """(N, L) integers are no one-hot rows where the model has outputs for L places."""
    model, y = Places(), torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0]])
    expected = functional.cross_entropy(model(X), y).item()
    assert clean(model, y) == pytest.approx(expected)
    assert clean(model, y.to(torch.int32)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="y has labels from 0 to 3; allowed: 0 to 2"):
        clean(model, y * 3)


def test_ignored_labels() -> None:
    model, y = nn.Linear(6, 3), torch.tensor([0, -100, 2, 1])
    assert clean(model, y) == pytest.approx(functional.cross_entropy(model(X), y).item())
    with pytest.raises(ValueError, match="y has labels from -1 to 2; allowed: 0 to 2"):
        clean(model, torch.tensor([0, -100, 2, -1]))


def test_labels_of_the_last_call_do_not_count_as_checked() -> None:
    criterion = Criterion()
    outputs = torch.zeros(4, 3)
    criterion.values(outputs, Y)
    with pytest.raises(ValueError, match="y has labels from 0 to 5"):
        criterion.values(outputs, torch.tensor([0, 1, 2, 5]))


@pytest.mark.parametrize(
    ("loss", "y", "says"),
    [
        (nn.BCEWithLogitsLoss(), Y, r"y has shape \(4,\); allowed with BCEWithLogitsLoss"),
        (
            nn.MSELoss(),
            torch.ones(3),
            "y has shape .* for 4 samples; allowed: one label per sample",
        ),
        (nn.MSELoss(), torch.ones(4, 1), r"y has shape \(4, 1\); allowed with MSELoss: .*\(4, 3\)"),
        (nn.SoftMarginLoss(), torch.ones(4, 3, 1), r"y has shape \(4, 3, 1\); allowed with Soft"),
        (nn.MSELoss(), SOFT.log(), "y holds NaN or infinite values; allowed: finite"),
        (nn.NLLLoss(), SOFT, "y has shape .* and dtype torch.float32; allowed: integer labels"),
        (nn.MultiMarginLoss(), SOFT, "y has shape .* allowed: what MultiMarginLoss takes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_labels_that_a_loss_does_not_take(loss: Any, y: Tensor, says: str) -> None:
    for call in (lfr_loss, local_flatness):
        with pytest.raises(ValueError, match=says):
            call(nn.Linear(6, 3), X, y, eps=0.1, loss=loss)


def test_targets_of_a_users_own_loss_are_left_alone() -> None:
    y = torch.tensor([float("nan"), 1.0, 2.0, 3.0])

    def own(outputs: Tensor, given: Tensor) -> Tensor:
        return (outputs.sum(dim=1) - given).nan_to_num() ** 2

    targets = loss_targets("y", y, nn.Linear(6, 3), Criterion(own), X)
    assert torch.equal(targets.nan_to_num(), y.nan_to_num())


def test_float64_beside_a_float32_model() -> None:
    model = nn.Linear(6, 3)
    found = lfr_loss(model, X.double(), Y, eps=0.1).total
    assert found.dtype == torch.float32
    assert torch.equal(found, lfr_loss(model, X, Y, eps=0.1).total)
    assert lfr_loss(model.double(), X.double(), Y, eps=0.1).total.dtype == torch.float64


def test_any_number_of_classes() -> None:
    assert class_labels("y", [5, 10**9], 2).tolist() == [5, 10**9]
    with pytest.raises(ValueError, match=r"y has the label 1e\+30; allowed: integer labels"):
        class_labels("y", [5, 1e30], 2)
    with pytest.raises(ValueError, match="y has labels from -1 to 5; allowed: 0 and above"):
        class_labels("y", [5, -1], 2)
