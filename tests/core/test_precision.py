"""A network's layers in a narrow type: which are, what losses and gradients come out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from art_lfr.core.criterion import Criterion
from art_lfr.core.gradients import input_gradient
from art_lfr.core.precision import NarrowModel, check_precision, finite_input_gradient, loss_scaler

HAS_SCALER = hasattr(torch.amp, "GradScaler")
NO_SCALER = f"torch {torch.__version__} has no GradScaler for a CPU"
FLOAT16 = pytest.param("fp16", marks=pytest.mark.skipif(not HAS_SCALER, reason=NO_SCALER))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(1), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)
    ).eval()


def as_if_compiled(model: nn.Module) -> nn.Module:
    """As `torch.compile` wraps it, which in torch 2.2 takes the hooks of all optimizers away."""
    wrapped = nn.Module()
    wrapped._orig_mod = model
    return wrapped


def test_all_layers_but_the_first_with_a_matrix_are_narrow() -> None:
    model, x = network(), torch.rand(4, 1, 8, 8)
    types: dict[int, torch.dtype] = {}
    for index in (1, 4):
        model[index].register_forward_hook(
            lambda _, __, out, index=index: types.update({index: out.dtype})
        )
    narrow = NarrowModel(model, torch.bfloat16)
    with narrow.first_layer_in_full():
        logits = narrow(x)
        assert types == {1: torch.float32, 4: torch.bfloat16}
        narrow(x)
        assert types == {1: torch.float32, 4: torch.bfloat16}
    assert logits.dtype == torch.float32
    narrow(x)
    assert types == {1: torch.bfloat16, 4: torch.bfloat16}
    model(x)
    assert types == {1: torch.float32, 4: torch.float32}


def test_a_difference_below_the_rounding_of_images_reaches_the_first_layer() -> None:
    """h = 1 / 1,020 at values near 1, where bfloat16 has steps of 1 / 256."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    x = 0.9 + 0.1 * torch.rand(32, 1, 8, 8)
    shifted = x + torch.full_like(x, 1 / 1020)
    narrow = NarrowModel(model, torch.bfloat16)
    with torch.no_grad():
        expected = model(shifted) - model(x)
        rounded = narrow(shifted) - narrow(x)
        with narrow.first_layer_in_full():
            assert torch.equal(narrow(shifted) - narrow(x), expected)
    assert float((rounded - expected).norm() / expected.norm()) > 0.5


@pytest.mark.parametrize("scale", [1.0, 2.0**14])
def test_a_gradient_that_overflows_in_a_search_is_taken_without_the_scale(scale: float) -> None:
    """One sample is 100 times as steep: its gradient times the scale is above 65,504."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2)).eval()
    x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    criterion = Criterion(lambda outputs, _: outputs[:, 0] * torch.tensor([1e-3, 50.0, 1.0]))
    narrow = NarrowModel(model, torch.float16)
    narrow.scale = scale
    found = finite_input_gradient(narrow, criterion, x, y)
    expected = input_gradient(model, criterion, x, y)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-6)
    assert narrow.scale == scale
    if scale > 1:
        assert not input_gradient(narrow, criterion, x, y).isfinite().all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_input_gradients_are_those_of_the_network_at_any_scale(precision: str) -> None:
    model, x, y = network(), torch.rand(16, 1, 8, 8), torch.arange(16) % 3
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    narrow, criterion = NarrowModel(model, dtype), Criterion()
    narrow.scale = 64.0
    with narrow.first_layer_in_full():
        found = input_gradient(narrow, criterion, x, y)
        criterion.values(narrow(x), y).mean().backward()
    expected = input_gradient(model, criterion, x, y)
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 0.02
    weight = model[4].weight
    assert weight.grad is not None
    scaled = weight.grad / 64.0
    model.zero_grad()
    criterion.values(model(x), y).mean().backward()
    assert float((scaled - weight.grad).norm() / weight.grad.norm()) < 0.02


def test_the_first_layer_may_work_in_place_and_nothing_stays_behind() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4, 3))
    narrow = NarrowModel(model, torch.bfloat16)
    narrow.scale = 2.0
    x = torch.rand(2, 4, requires_grad=True)
    with narrow.first_layer_in_full():
        narrow(x).sum().backward()
    assert x.grad is not None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in narrow.modules())


@pytest.mark.parametrize(
    ("precision", "model", "problem"),
    [
        ("bf16", nn.Linear(2, 2).double(), "precision is 'bf16' with a network of float64"),
        ("fp16", nn.Linear(2, 2).half(), "precision is 'fp16' with a network of float16"),
        ("bf16", as_if_compiled(nn.Linear(2, 2)), "precision is 'bf16' with a compiled network"),
    ],
)
def test_what_cannot_be_narrowed_is_refused(precision: str, model: nn.Module, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_precision(precision, model)
    check_precision("float32", model)


@pytest.mark.skipif(not HAS_SCALER, reason=NO_SCALER)
def test_a_scaler_has_its_numbers_from_the_start() -> None:
    scaler = loss_scaler(torch.device("cpu"))
    assert scaler.get_scale() == 1024.0
    scaler.update(scaler.get_scale() * scaler.get_backoff_factor())
    assert scaler.get_scale() == 512.0
