"""A vision transformer with fused attention, for which torch has no second derivative."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from lfr_testing import classifier_around

from art_lfr import AdversarialTrainerLFRPyTorch

timm = pytest.importorskip("timm", reason="timm, which robustbench brings, is not installed")


def classifier() -> PyTorchClassifier:
    torch.manual_seed(0)
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=3
    )
    assert network.blocks[0].attn.fused_attn
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    return classifier_around(network, (3, 32, 32), 3, optimizer=optimizer)


def data() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    y = np.arange(24) % 3
    x = 0.2 * draw.random((24, 3, 32, 32), dtype=np.float32)
    x[np.arange(24), y] += 0.6  # the class is the colour
    return x, y


@pytest.mark.parametrize("settings", [{}, {"autocast": True}])
def test_finite_differences_train_it(settings: dict[str, bool]) -> None:
    x, y = data()
    trained = classifier()
    trainer = AdversarialTrainerLFRPyTorch(
        trained, eps=0.03, max_iter=2, warmup_epochs=0, verbose=False, **settings
    )
    trainer.fit(x, y, batch_size=8, nb_epochs=6)
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]
    assert trainer.history[-1]["flatness"] > 0
    assert (trained.predict(x).argmax(1) == y).mean() > 0.9


def test_exact_names_the_mend_and_leaves_the_weights() -> None:
    x, y = data()
    given = classifier()
    before = [p.detach().clone() for p in given.model.parameters()]
    trainer = AdversarialTrainerLFRPyTorch(
        given, eps=0.03, max_iter=2, estimator="exact", verbose=False
    )
    with pytest.raises(RuntimeError, match=r"use estimator='finite-difference'"):
        trainer.fit(x, y, batch_size=8, nb_epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, given.model.parameters(), strict=True))
