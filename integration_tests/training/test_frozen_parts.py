"""What the user has frozen and put in eval mode is left alone by training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch


class Watched(nn.Dropout):
    """Keeps the modes in which training ran it: those of passes with a graph in the weights."""

    def __init__(self) -> None:
        super().__init__(0.2)
        self.modes: set[bool] = set()

    def forward(self, x):
        self.modes.add(self.training)
        return super().forward(x)


def backbone():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        Watched(),
        nn.Flatten(),
        nn.Linear(144, 10),
    )


def train(make_classifier, data, model, *, predict=False, only=None):
    """How far the statistics moved, after two epochs."""
    before = model[1].running_mean.clone()
    classifier = make_classifier(model=model)
    trained = [p for p in (only or model).parameters() if p.requires_grad]
    classifier._optimizer = torch.optim.SGD(trained, lr=0.05)
    if predict:
        classifier.predict(data.x[:4])
    flags = [module.training for module in model.modules()]
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=1, verbose=False)
    trainer.fit(data.x[:64], data.y[:64], nb_epochs=2, batch_size=32)
    assert [module.training for module in model.modules()] == flags
    return float((model[1].running_mean - before).abs().max())


@pytest.mark.parametrize("predict", [False, True])
def test_statistics_of_a_frozen_backbone_in_eval_mode_stay(make_classifier, data, predict):
    model = backbone()
    head = model[5].weight.clone()
    model[:4].requires_grad_(False)
    model[:4].eval()
    assert train(make_classifier, data, model, predict=predict) == 0
    assert not torch.equal(model[5].weight, head)
    # `predict` puts the whole network in eval mode: a layer outside any frozen part trains.
    assert model[3].modes == ({False, True} if predict else {False})


def test_what_is_not_in_the_optimizer_is_frozen_too(make_classifier, data):
    model = backbone()
    model[:4].eval()
    assert train(make_classifier, data, model, only=model[5]) == 0


@pytest.mark.parametrize("choose", ["frozen", "eval", "predict"])
def test_one_of_both_alone_does_not_stop_them(make_classifier, data, choose):
    model = backbone()
    if choose == "frozen":
        model[:4].requires_grad_(False)
    if choose == "eval":
        model[:4].eval()
    assert train(make_classifier, data, model, predict=choose == "predict") > 0.05
    assert True in model[3].modes or choose == "eval"


def test_dropout_stays_off_inside_a_frozen_part_only(make_classifier, data):
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.dropout, self.head = backbone()[:5], Watched(), nn.Linear(144, 10)

        def forward(self, x):
            return self.head(self.dropout(self.base(x)))

        def __getitem__(self, index):
            return self.base[index]

    model = Adapted()
    model.base.requires_grad_(False).eval()
    assert train(make_classifier, data, model, predict=True) == 0
    assert model.base[3].modes == {False}
    assert model.dropout.modes == {False, True}


def test_a_network_that_keeps_its_own_layers_in_eval_mode_does_so(make_classifier, data):
    class Stubborn(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            self[1].eval()
            return self

    model = Stubborn(*backbone())
    assert train(make_classifier, data, model) == 0
