"""What a type checker says of the keywords: `tox -e types` reads this, nothing runs it.

A line without a comment is accepted. An ignore that nothing needs is an error of `mypy --strict`:
so every line with one is refused.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from art_lfr import (
    AdversarialTrainerLFRPyTorch,
    LFRLoss,
    LocalFlatnessRegularization,
    lfr_loss,
    local_flatness,
)

model, x, y = nn.Linear(2, 2), torch.rand(2, 2), torch.tensor([0, 1])
images, labels = np.zeros((2, 2)), np.arange(2)

lfr_loss(model, x, y, eps=0.1, lam=0.1, steps=3, norm="inf", bounds=None).total.detach()
lfr_loss(model=model, x=x, y=y, eps=0.1)
lfr_loss(model, x, y, eps=0.1, lamb=0.1)  # type: ignore[call-arg]
lfr_loss(model, x, y, eps=0.1, max_iter=3)  # type: ignore[call-arg]
lfr_loss(model, x, y)  # type: ignore[call-arg]
lfr_loss(model, x, y, eps=0.1, estimator=1)  # type: ignore[arg-type]

LFRLoss(eps=0.1, renew_every=2)(model, x, y)
LFRLoss(eps=0.1, renew_evry=2)  # type: ignore[call-arg]

local_flatness(model, x, y, eps=0.1, restarts=2).mean()
local_flatness(model, x, y, eps=0.1, restart=2)  # type: ignore[call-overload]

trainer = AdversarialTrainerLFRPyTorch(model, eps=0.1, max_grad_norm=1.0, warm_start=True)
trainer.fit(images, labels, nb_epochs=3, checkpoint_dir="run", resume=True)
AdversarialTrainerLFRPyTorch(model, eps=0.1, max_gradient_norm=1.0)  # type: ignore[call-arg]
AdversarialTrainerLFRPyTorch(model, steps=3)  # type: ignore[call-arg]
trainer.fit(images, labels, epochs=3)  # type: ignore[call-arg]
trainer.fit(images, labels, checkpoint="run")  # type: ignore[call-arg]

LocalFlatnessRegularization(model, eps=0.1, max_iter=3, nb_epochs=2)
LocalFlatnessRegularization(model, epsilon=0.1)  # type: ignore[call-arg]
