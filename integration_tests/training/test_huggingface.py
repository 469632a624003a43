"""A Hugging Face image classifier with a processor, through ART's wrapper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, local_flatness

transformers = pytest.importorskip(
    "transformers", reason='transformers is not installed: pip install "art-lfr[huggingface]"'
)


def upscale(x):
    """A processor that gradients pass through: 8x8 to 16x16, normalised."""
    return (nn.functional.interpolate(x, scale_factor=2) - 0.5) / 0.5


@pytest.fixture
def classifier():
    from art.estimators.classification.hugging_face import HuggingFaceClassifierPyTorch

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=4,
        num_channels=1,
        num_labels=10,
        hidden_dropout_prob=0.05,
    )
    model = transformers.ViTForImageClassification(config)
    return HuggingFaceClassifierPyTorch(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=10,
        optimizer=torch.optim.Adam(model.parameters(), lr=5e-3),
        clip_values=(0.0, 1.0),
        processor=upscale,
    )


def test_a_vision_transformer_learns_and_its_processor_is_in_the_gradient(classifier, data):
    x, y = data.x[:256], data.y[:256]
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, eps=0.02, lam=0.005, max_iter=2, warmup_epochs=8, verbose=False
    )
    trainer.fit(x, y, batch_size=32, nb_epochs=14)
    assert trainer.history[-1]["train_accuracy"] > trainer.history[0]["train_accuracy"] + 0.2
    # At eps 0 the flatness is the l1 norm of the gradient in raw inputs, in front of upscale().
    found = local_flatness(classifier, x[:4], y[:4], eps=0.0, steps=0)
    inputs = torch.tensor(x[:4], requires_grad=True)
    classifier.model.eval()
    outputs = classifier.model(upscale(inputs))  # ART has made this return logits
    (gradient,) = torch.autograd.grad(
        nn.functional.cross_entropy(outputs, torch.tensor(y[:4]), reduction="sum"), inputs
    )
    assert np.allclose(found, gradient.abs().flatten(1).sum(1), rtol=1e-5)
