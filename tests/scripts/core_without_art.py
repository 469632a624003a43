"""core_without_art.py MODULE...: the modules and what they offer, where ART is not installed."""

from __future__ import annotations

import importlib
import sys

sys.modules["art"] = None  # `import art` raises ImportError
for name in sys.argv[1:]:
    importlib.import_module(name)

import torch  # noqa: E402

from art_lfr import LFRLoss, lfr_loss, local_flatness  # noqa: E402

model = torch.nn.Linear(3, 2)
x, y = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
lfr_loss(model, x, y, eps=0.1, estimator="exact").total.backward()
LFRLoss(eps=0.1)(model, x, y).total.backward()
print(local_flatness(model, x, y, eps=0.1).shape)
