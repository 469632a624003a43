"""Per-sample losses from the loss a user has, with that loss's own normalisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.loss import lfr_loss

WEIGHT = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
CROSS_ENTROPIES: list[dict[str, Any]] = [
    {},
    {"weight": WEIGHT},
    {"ignore_index": 1},
    {"ignore_index": -1},
    {"label_smoothing": 0.2},
    {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.1},
]


def model_and_batch(count: int = 12) -> tuple[nn.Module, Tensor, Tensor]:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return model, torch.rand(count, 4, dtype=torch.float64), torch.arange(count) % 3


@pytest.mark.parametrize("keywords", CROSS_ENTROPIES, ids=str)
def test_cross_entropy_keeps_its_own_mean(keywords: dict[str, Any]) -> None:
    model, x, y = model_and_batch()
    if keywords.get("ignore_index") == -1:
        y = y.masked_fill(y == 2, -1)
    loss = nn.CrossEntropyLoss(**keywords)
    terms = lfr_loss(model, x, y, eps=0.1, lam=0, loss=loss)
    torch.testing.assert_close(terms.total, loss(model(x), y), rtol=1e-14, atol=0)
    assert float(terms.flatness) == 0
    assert loss.reduction == "mean"


@pytest.mark.parametrize("keywords", CROSS_ENTROPIES, ids=str)
@pytest.mark.parametrize("estimator", ["finite-difference", "exact"])
def test_penalty_is_normalised_as_the_loss_is(keywords: dict[str, Any], estimator: str) -> None:
    model, x, y = model_and_batch()
    if keywords.get("ignore_index") == -1:
        y = y.masked_fill(y == 2, -1)
    loss = nn.CrossEntropyLoss(**keywords)
    found = lfr_loss(
        model, x, y, eps=0, lam=1, radius=1e-5, estimator=estimator, norm=2, loss=loss
    ).flatness
    # The gradient of the user's own loss by the batch holds each sample's, over the same total.
    x = x.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(loss(model(x), y), x)
    torch.testing.assert_close(found, g.norm(dim=1).sum(), rtol=1e-7, atol=0)


def test_ignored_samples_have_no_part() -> None:
    model, x, y = model_and_batch()
    loss = nn.CrossEntropyLoss(ignore_index=1)
    kept = y != 1
    one = lfr_loss(model, x, y, eps=0.1, loss=loss, estimator="exact", bounds=None, steps=0)
    assert float(one.flatness.detach()) > 0
    torch.testing.assert_close(one.clean, F.cross_entropy(model(x[kept]), y[kept]))


def test_weights_of_dense_labels() -> None:
    outputs = torch.randn(4, 3, 5, dtype=torch.float64)
    y = torch.randint(3, (4, 5))
    for loss in (nn.CrossEntropyLoss(weight=WEIGHT), nn.CrossEntropyLoss(ignore_index=0)):
        criterion = Criterion(loss)
        values = criterion.values(outputs, y)
        assert values.shape == (4,)
        torch.testing.assert_close(criterion.mean(values, y), loss(outputs, y))


def test_other_losses() -> None:
    outputs = torch.randn(6, 3, dtype=torch.float64)
    probabilities = outputs.flip(0).softmax(dim=1)
    pairs: list[tuple[nn.Module, Tensor, Tensor]] = [
        (nn.CrossEntropyLoss(weight=WEIGHT), outputs, probabilities),
        (nn.NLLLoss(weight=WEIGHT), outputs.log_softmax(1), torch.arange(6) % 3),
        (nn.BCEWithLogitsLoss(), outputs[:, :1], torch.ones(6, 1, dtype=torch.float64)),
        (nn.MSELoss(), outputs, probabilities),
        (nn.KLDivLoss(reduction="batchmean"), outputs.log_softmax(1), probabilities),
        (nn.MultiMarginLoss(), outputs, torch.arange(6) % 3),
    ]
    for loss, predicted, y in pairs:
        criterion = Criterion(loss)
        values = criterion.values(predicted, y)
        assert values.shape == (6,)
        torch.testing.assert_close(criterion.mean(values, y), loss(predicted, y))
    total = Criterion(nn.MSELoss(reduction="sum"))
    mean = total.mean(total.values(outputs, probabilities), probabilities)
    torch.testing.assert_close(mean, nn.MSELoss(reduction="sum")(outputs, probabilities) / 6)


def test_narrow_integer_labels() -> None:
    model, x, y = model_and_batch()
    for dtype in (torch.int32, torch.uint8, torch.int16):
        for loss in (nn.CrossEntropyLoss(weight=WEIGHT), None):
            terms = lfr_loss(model, x, y.to(dtype), eps=0.1, loss=loss)
            assert torch.equal(terms.total, lfr_loss(model, x, y, eps=0.1, loss=loss).total)


def test_callables() -> None:
    model, x, y = model_and_batch()

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs, y, reduction="none")

    torch.testing.assert_close(
        lfr_loss(model, x, y, eps=0.1, loss=loss).total, lfr_loss(model, x, y, eps=0.1).total
    )
    assert Criterion(Criterion(loss))._loss is loss


def test_class_weights_follow_the_users_loss_to_another_type() -> None:
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    criterion = Criterion(loss)
    loss.float()
    outputs, y = torch.randn(6, 3), torch.arange(6) % 3
    values = criterion.values(outputs, y)
    torch.testing.assert_close(criterion.mean(values, y), loss(outputs, y))


@pytest.mark.parametrize(
    ("loss", "error", "says"),
    [
        (F.cross_entropy, ValueError, r"loss returned shape \(\) for 12 samples; allowed: one"),
        (lambda o, y: o.mean(dim=0), ValueError, r"loss returned shape \(3,\) for 12 samples"),
        (lambda o, y: 1.0, TypeError, "loss returned a float; allowed: a tensor"),
        (nn.Identity(), ValueError, "loss is Identity, which has no `reduction`; allowed: a torch"),
        (nn.CrossEntropyLoss, TypeError, "loss is <class .*CrossEntropyLoss'>; allowed"),
        ("cross_entropy", TypeError, "loss is 'cross_entropy'; allowed: None, a torch.nn"),
    ],
)
def test_losses_that_are_none(loss: Any, error: type[Exception], says: str) -> None:
    model, x, y = model_and_batch()
    with pytest.raises(error, match=says):
        lfr_loss(model, x, y, eps=0.1, loss=loss)


def test_outputs_with_logits() -> None:
    class Output:
        logits = torch.ones(2, 3)

    assert logits_of(Output()) is Output.logits
    with pytest.raises(TypeError, match="the model returned tuple; allowed: a tensor of logits"):
        logits_of((torch.ones(2),))
