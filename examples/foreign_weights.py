"""A network that others published: a file of weights and a module, judged without their code.

What is made here stands for what is downloaded: a module with its normalisation inside, and a
`.pt` file with the weights under `state_dict`, from several GPUs. Nothing in the file is run.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

from art_lfr import evaluate, masking_report
from art_lfr.data import digits
from art_lfr.models import digits_cnn, load_network


class Published(nn.Module):
    """Images in [0, 1] to logits; eps is in these units."""

    def __init__(self):
        super().__init__()
        self.network = digits_cnn()

    def forward(self, x):
        return self.network((x - 0.3) / 0.4)


data = digits()
x, y = torch.tensor(data.x_train), torch.tensor(data.y_train)
theirs = Published()
optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
for _ in range(8):
    for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(x[rows]), y[rows]).backward()
        optimizer.step()
path = Path(tempfile.mkdtemp()) / "theirs.pt"
torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, path)

network = load_network(path, model=Published)  # in eval mode
x, y = data.x_test[:100], data.y_test[:100]
print(evaluate(network, x, y, eps=0.1))
print(masking_report(network, x, y, eps=0.1))
