"""Networks of a user's that are exported and loaded by name."""

import torch
from torch import nn


class Backbone(nn.Module):
    """Keys such as backbone.model.conv.weight and module.x, which RobustBench cuts."""

    def __init__(self, classes=10):
        super().__init__()
        self.backbone = nn.ModuleDict(
            {"model": nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3, stride=2)})}
        )
        self.module = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.model = nn.Linear(16, classes)
        self.register_module("odd%2Ename", nn.Identity())
        setattr(self, "a%b", nn.Parameter(torch.ones(1)))

    def forward(self, x):
        x = self.module(self.backbone["model"]["conv"](x))
        return getattr(self, "a%b") * self.model(x.flatten(1))


def thousand():
    return Backbone(1000)
