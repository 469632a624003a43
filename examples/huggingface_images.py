"""LFR for an image classifier of transformers, through ART's wrapper, with its processor.

A small vision transformer with random weights stands for one that you would load by
`from_pretrained`.
"""

import torch
from art.estimators.classification.hugging_face import HuggingFaceClassifierPyTorch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate
from art_lfr.data import digits


def processor(x: Tensor) -> Tensor:
    """What the network takes, of raw images in [0, 1]; gradients pass through it."""
    return (nn.functional.interpolate(x, scale_factor=2) - 0.5) / 0.5


torch.manual_seed(0)
config = ViTConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    image_size=16,
    patch_size=4,
    num_channels=1,
    num_labels=10,
)
model = ViTForImageClassification(config)
classifier = HuggingFaceClassifierPyTorch(
    model,
    loss=nn.CrossEntropyLoss(),
    optimizer=torch.optim.Adam(model.parameters(), lr=4e-3),
    input_shape=(1, 8, 8),
    nb_classes=10,
    clip_values=(0.0, 1.0),
    processor=processor,
)

data = digits()
trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.05, max_iter=2)
trainer.fit(data.x_train, data.y_train, nb_epochs=12, batch_size=64)
print(evaluate(classifier, data.x_test[:50], data.y_test[:50], eps=0.05))
