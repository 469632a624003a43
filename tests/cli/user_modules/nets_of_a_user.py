"""What a user names by `--model nets_of_a_user:...`: networks, and what is none."""

import torch


def make():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))


def make_dropout():
    return torch.nn.Sequential(torch.nn.Dropout(0.5), make())


def make_broken():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Threshold(9.0, 0.0), make())


def make_raising():
    raise KeyError("depth")


class Unfinished(torch.nn.Module):
    def forward(self, x):
        return self.layers(x)


number = 3
wrong = dict
