"""Training with convolutions' weights in channels-last order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.errors import UsageError
from art_lfr.training import layout

LFR = {"eps": 0.1, "warmup_epochs": 1.0, "verbose": False}


def trained(classifier, data, epochs=2, run=None, **settings):
    trainer = AdversarialTrainerLFRPyTorch(classifier, **{**LFR, **settings})
    trainer.fit(data.x[:200], data.y[:200], batch_size=64, nb_epochs=epochs, **(run or {}))
    return trainer


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )


def weights(classifier):
    return list(classifier.model.state_dict().values())


def test_the_same_is_learnt_up_to_rounding(make_classifier, data):
    found, expected = make_classifier(), make_classifier()
    trained(found, data, channels_last=True)
    trained(expected, data, channels_last=False)
    for a, b in zip(weights(found), weights(expected), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)
        assert a.is_contiguous()


def test_it_is_chosen_where_it_gains_and_resumes_to_the_same_bits(
    make_classifier, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(layout, "WORTH", 1e3)
    seen = []

    def recording(module, inputs, output):
        seen.append(output.is_contiguous(memory_format=torch.channels_last))

    whole, stopped, resumed = (make_classifier(model=convolutions()) for _ in range(3))
    handle = whole.model[1].register_forward_hook(recording)
    trained(whole, data, 3)
    handle.remove()
    assert any(seen)
    run = {"checkpoint_dir": tmp_path, "callback": lambda record: record["epoch"] == 1}
    trained(stopped, data, 3, run)
    trainer = trained(resumed, data, 3, {"checkpoint_dir": tmp_path, "resume": True})
    trainer.fit(data.x[:200], data.y[:200], batch_size=64, nb_epochs=2)
    pairs = zip(weights(whole), weights(resumed), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_small_networks_are_left_as_they_are(make_classifier, data):
    found, expected = make_classifier(), make_classifier()
    trained(found, data)
    trained(expected, data, channels_last=False)
    pairs = zip(weights(found), weights(expected), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_it_is_refused_before_anything_changes(make_classifier, data):
    classifier = make_classifier(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    before = [value.clone() for value in weights(classifier)]
    with pytest.raises(UsageError, match="channels_last is True with a network that does not"):
        trained(classifier, data, channels_last=True)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(classifier), strict=True))
    with pytest.raises(TypeError, match="channels_last is 1; allowed: True or False"):
        AdversarialTrainerLFRPyTorch(make_classifier(), **LFR, channels_last=1)
