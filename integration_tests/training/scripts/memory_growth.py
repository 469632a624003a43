"""Prints the peak of the memory in MiB after training on 128 images, then on 1,152.

Each image takes 64 kB and is made when it is asked for.
"""

from __future__ import annotations

import resource

import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn
from torch.utils.data import DataLoader, Dataset

from art_lfr import AdversarialTrainerLFRPyTorch


class Generated(Dataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        return torch.rand((1, 128, 128), generator=generator), index % 10


model = nn.Sequential(nn.Flatten(), nn.Linear(128 * 128, 10))
classifier = PyTorchClassifier(
    model,
    nn.CrossEntropyLoss(),
    (1, 128, 128),
    10,
    clip_values=(0, 1),
    device_type="cpu",
    optimizer=torch.optim.SGD(model.parameters(), 0.01),
)
for count in (128, 1152):
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=0, verbose=False)
    trainer.fit_loader(DataLoader(Generated(count), batch_size=32), nb_epochs=1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
