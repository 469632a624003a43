"""Extreme numbers: what comes out is finite and right in sign, or a clear error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from art_lfr import AdversarialTrainerLFRPyTorch, lfr_loss, local_flatness


class Scaled(nn.Module):
    """A network's logits times a factor."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x) * self.factor


class Case(NamedTuple):
    """How a usual batch in [0, 1] and a usual setting are changed."""

    x: Callable[[Tensor], Tensor] = lambda x: x
    y: Callable[[Tensor], Tensor] = lambda y: y
    model: Callable[[nn.Module], nn.Module] = lambda model: model
    eps: float = 0.1
    bounds: Any = (0.0, 1.0)


CASES = {
    "float64": Case(x=lambda x: x.double(), model=lambda m: m.double()),
    "bfloat16": Case(x=lambda x: x.bfloat16(), model=lambda m: m.bfloat16()),
    "float16": Case(x=lambda x: x.half(), model=lambda m: m.half()),
    "constant images": Case(x=lambda x: torch.full_like(x, 0.5)),
    "black images": Case(x=torch.zeros_like),
    "white images": Case(x=torch.ones_like),
    "one class": Case(y=torch.zeros_like),
    "one sample": Case(x=lambda x: x[:1], y=lambda y: y[:1]),
    "saturated logits": Case(model=lambda m: Scaled(m, 1e6)),  # probabilities of 0 and 1
    "zero gradients": Case(model=lambda m: Scaled(m, 0.0)),
    "magnitude 1e6": Case(x=lambda x: 1e6 * x, eps=1e5, bounds=(0.0, 1e6)),
    "magnitude 1e6, eps of 1": Case(x=lambda x: 1e6 * x, eps=0.1, bounds=(0.0, 1e6)),
    "magnitude 1e-6": Case(x=lambda x: 1e-6 * x, eps=1e-7, bounds=(0.0, 1e-6)),
    "eps 1e-8": Case(eps=1e-8),
    "eps 100 times the box": Case(eps=100.0),
    "no box": Case(bounds=None, eps=10.0),
}


# In these x + radius is x.
ROUNDED = ("magnitude 1e6, eps of 1", "eps 1e-8")
# ART makes float32 of everything, and BatchNorm cannot train on a single sample.
NARROW = ("float64", "float16", "bfloat16", "one sample")


@pytest.fixture
def made() -> Callable[[Case], tuple[nn.Module, Tensor, Tensor]]:
    """Maker of a network with BatchNorm, and of a batch."""

    def make(case: Case) -> tuple[nn.Module, Tensor, Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 36, 3),
        )
        x, y = torch.rand(16, 1, 6, 6), torch.arange(16) % 3
        return case.model(network), case.x(x), case.y(y)

    return make


@pytest.mark.parametrize("estimator", ["finite-difference", "exact"])
@pytest.mark.parametrize("norm", [math.inf, 2.0, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_loss_and_measure(made, name, norm, estimator):
    case = CASES[name]
    model, x, y = made(case)
    keywords = {"eps": case.eps, "norm": norm, "estimator": estimator, "bounds": case.bounds}
    flatness = local_flatness(model.eval(), x, y, steps=4, **keywords)
    assert bool(flatness.isfinite().all())
    assert bool((flatness >= 0).all())
    model.train()
    if name in ROUNDED and estimator == "finite-difference":
        with pytest.raises(ValueError, match="less than the rounding of inputs"):
            lfr_loss(model, x, y, lam=1e-3 * case.eps, steps=4, **keywords)
        return
    terms = lfr_loss(model, x, y, lam=1e-3 * case.eps, steps=4, **keywords)
    assert all(bool(term.isfinite()) for term in terms)
    terms.total.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("name", [name for name in CASES if name not in NARROW])
def test_training(made, make_classifier, name):
    """Weights stay finite, or training stops, says so and gives back finite ones."""
    case = CASES[name]
    model, x, y = made(case)
    classifier = make_classifier(model=model, input_shape=(1, 6, 6), clip_values=case.bounds)
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=case.eps, max_iter=2, verbose=False)
    try:
        trainer.fit(x.numpy(), y.numpy(), nb_epochs=3, batch_size=8)
    except ValueError as error:
        assert name in ROUNDED
        assert "radius is" in str(error)  # noqa: PT017
    except RuntimeError as error:
        assert "last good weights" in str(error)  # noqa: PT017
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert np.isfinite(classifier.predict(x.numpy())).all()
