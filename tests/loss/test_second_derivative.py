"""Operations without a second derivative: "exact" says so, finite differences do without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from art_lfr.loss import lfr_loss
from art_lfr.measure import local_flatness

MEND = "estimator is 'exact', but a layer has no second derivative; use estimator='finite-diff"


class OnceCube(torch.autograd.Function):
    """x^3 with a backward pass that autograd cannot look into."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


class Once(nn.Module):
    # torch alone would take the derivative by x for that of tanh, in silence.
    def forward(self, x: Tensor) -> Tensor:
        return OnceCube.apply(torch.tanh(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.view(len(x), 1, -1, 8)
        return F.scaled_dot_product_attention(x, x, x).flatten(1)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("layer", [Once, Attention])
def test_exact_names_the_mend(layer: type[nn.Module], steps: int) -> None:
    model = nn.Sequential(layer(), nn.Linear(16, 3))
    x, y = torch.rand(5, 16), torch.arange(5) % 3
    with pytest.raises(RuntimeError, match=MEND):
        lfr_loss(model, x, y, eps=0.1, lam=0.1, estimator="exact", steps=steps)
    terms = lfr_loss(model, x, y, eps=0.1, lam=0.1, steps=steps)
    terms.total.backward()
    assert float(terms.flatness.detach()) > 0
    flatness = local_flatness(model, x, y, eps=0.1, steps=steps)
    assert bool((flatness > 0).all())
    if steps:
        with pytest.raises(RuntimeError, match=MEND):
            local_flatness(model, x, y, eps=0.1, estimator="exact", steps=steps)


def test_finite_difference_is_right_through_such_a_layer() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(16, 3).double(), torch.rand(5, 16).double()
    y, found = torch.arange(5) % 3, []

    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x) ** 3

    for layer in (Once(), Twice()):
        model = nn.Sequential(layer, linear)
        terms = lfr_loss(model, x, y, eps=0.1, lam=0.1, steps=4)
        found.append(torch.autograd.grad(terms.total, linear.weight)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("estimator", ["exact", "finite-difference"])
def test_other_errors_of_the_model_pass_as_they_are(estimator: str) -> None:
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and torch.is_grad_enabled() and x.requires_grad:
                raise RuntimeError("out of cheese")
            return super().forward(x)

    x, y = torch.rand(5, 16), torch.arange(5) % 3
    model = nn.Sequential(nn.Tanh(), nn.Linear(16, 16), Broken(16, 3))
    with pytest.raises(RuntimeError, match=r"^out of cheese$"):
        lfr_loss(model, x, y, eps=0.1, estimator=estimator)


def test_a_linear_loss_has_no_curvature_but_is_no_error() -> None:
    model = nn.Linear(6, 3)
    x, y = torch.rand(4, 6), torch.arange(4) % 3

    def margin(outputs: Tensor, y: Tensor) -> Tensor:
        return outputs.sum(dim=1) - 2 * outputs.gather(1, y[:, None])[:, 0]

    for estimator in ("exact", "finite-difference"):
        terms = lfr_loss(model, x, y, eps=0.1, lam=1, estimator=estimator, loss=margin)
        terms.total.backward()
        found = local_flatness(model, x, y, eps=0.1, estimator=estimator, loss=margin)
        w = model.weight.detach().sum(dim=0) - 2 * model.weight.detach()[y]
        torch.testing.assert_close(found, w.abs().sum(dim=1))
        torch.testing.assert_close(terms.flatness.detach(), found.mean(), rtol=1e-4, atol=0)
