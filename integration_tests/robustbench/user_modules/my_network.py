"""A network of a user's, with the weights of the tests' small network."""

from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
