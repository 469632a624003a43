"""Training with a network's layers in bfloat16 and float16."""

from __future__ import annotations

import pickle
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.errors import TrainingError, UsageError
from art_lfr.models import network_info
from art_lfr.penalties import Part, Penalty
from art_lfr.training.step import Objective

LFR = {"eps": 0.1, "warmup_epochs": 1.0, "verbose": False}
HAS_SCALER = hasattr(torch.amp, "GradScaler")
FLOAT16 = pytest.param(
    "fp16",
    marks=pytest.mark.skipif(
        not HAS_SCALER, reason=f"torch {torch.__version__} has no GradScaler for a CPU"
    ),
)


def trained(classifier, data, epochs=3, **settings):
    run = {k: settings.pop(k) for k in ("checkpoint_dir", "resume", "callback") if k in settings}
    validation = settings.pop("validation_data", None)
    trainer = AdversarialTrainerLFRPyTorch(classifier, **{**LFR, **settings})
    trainer.fit(
        data.x[:300],
        data.y[:300],
        batch_size=64,
        nb_epochs=epochs,
        validation_data=validation,
        **run,
    )
    return trainer


def weights(classifier):
    return {k: v.clone() for k, v in classifier.model.state_dict().items()}


@pytest.mark.parametrize("precision", ["bf16", FLOAT16])
@pytest.mark.parametrize("penalty", ["lfr", "adversarial-training"])
def test_it_trains_as_float32_does_up_to_rounding(make_classifier, data, precision, penalty):
    found, expected = make_classifier(), make_classifier()
    narrow = trained(found, data, precision=precision, penalty=penalty)
    full = trained(expected, data, penalty=penalty)
    for name in ("loss", "clean_loss", "gradient_norm"):
        assert narrow.history[-1][name] == pytest.approx(full.history[-1][name], rel=0.1)
        assert narrow.history[-1][name] != full.history[-1][name]
    assert narrow.history[-1]["train_accuracy"] > 0.5
    assert {v.dtype for v in weights(found).values() if v.is_floating_point()} == {torch.float32}
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in found.model.modules())


@pytest.mark.parametrize("precision", ["bf16", FLOAT16])
def test_a_resumed_run_ends_with_the_same_bits(make_classifier, data, tmp_path, precision):
    whole, parts = make_classifier(), make_classifier()
    settings = {"precision": precision, "checkpoint_dir": tmp_path / "a"}
    expected = trained(whole, data, 4, **settings)
    settings["checkpoint_dir"] = tmp_path / "b"
    trained(parts, data, 4, **settings, callback=lambda record: record["epoch"] == 2)
    again = make_classifier()
    resumed = trained(again, data, 4, **settings, resume=True)
    assert len(resumed.history) == 2 or resumed.history[-1]["epoch"] == 2  # it had been stopped
    resumed.fit(data.x[:300], data.y[:300], batch_size=64, nb_epochs=2)
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(whole).values(), weights(again).values(), strict=True)
    )
    assert expected.history[-1]["loss"] == resumed.history[-1]["loss"]
    if precision == "fp16":
        kept = torch.load(tmp_path / "b" / "last.pt", weights_only=True)["loss_scale"]
        assert kept["scale"] == 1024.0
        assert kept["_growth_tracker"] == 2 * 5


def test_validation_is_in_the_networks_own_type(make_classifier, data):
    classifier = make_classifier()
    x, y = data.x[300:400], data.y[300:400]
    validated = trained(classifier, data, 1, precision="bf16", validation_data=(x, y))
    again = trained(make_classifier(), data, 1, precision="bf16")
    assert validated.history[0]["loss"] == again.history[0]["loss"]
    correct = (classifier.predict(x).argmax(axis=1) == y).mean()
    assert validated.history[0]["validation_accuracy"] == pytest.approx(float(correct))


@pytest.mark.skipif(not HAS_SCALER, reason="torch without GradScaler for a CPU")
def test_a_step_in_which_float16_overflows_is_left_out(make_classifier, data, monkeypatch):
    """An activation of 1e7, which float16 has not, in the second batch."""
    classifier, calls = make_classifier(batch_norm=False), []
    step = Objective.step

    def recording(self, x, y, **keywords):
        if len(calls) == 1:
            x = x.clone()
            x[0] = 1e8
        before = weights(classifier)
        result = step(self, x, y, **keywords)
        same = all(
            torch.equal(a, b)
            for a, b in zip(before.values(), weights(classifier).values(), strict=True)
        )
        calls.append((result is None, same, keywords["scaler"].get_scale()))
        return result

    monkeypatch.setattr(Objective, "step", recording)
    trained(classifier, data, 1, precision="fp16", warm_start=False)
    assert calls == [
        (False, False, 1024.0),
        (True, True, 512.0),
        *[(False, False, 512.0)] * 3,
    ]


@pytest.mark.skipif(not HAS_SCALER, reason="torch without GradScaler for a CPU")
def test_a_loss_that_is_nan_at_any_scale_ends_training(data):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Linear(10, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e30)
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 8, 8), 10, optimizer=optimizer, clip_values=(0, 1)
    )
    with pytest.raises(TrainingError, match=r"float16 overflows|not finite|the loss is"):
        trained(classifier, data, 4, precision="fp16", max_grad_norm=None)
    assert all(bool(v.isfinite().all()) for v in weights(classifier).values())


@pytest.mark.parametrize(
    ("said", "expected"), [("bf16", "bf16"), ("no", "float32"), ("", "float32")]
)
def test_accelerates_mixed_precision_is_heeded(make_classifier, data, monkeypatch, said, expected):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", said)
    found, same = make_classifier(), make_classifier()
    trained(found, data, 1)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    trained(same, data, 1, precision=expected)
    pairs = zip(weights(found).values(), weights(same).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_accelerate_cannot_mean_is_refused(make_classifier, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(UsageError, match="mixed_precision is 'fp8'; allowed: 'no', 'bf16', 'fp16'"):
        AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)


@pytest.fixture
def apex(monkeypatch):
    """As much of NVIDIA's apex as ART's classifier calls with use_amp."""
    amp = types.SimpleNamespace(initialize=lambda models, optimizers, **_: (models, optimizers))
    monkeypatch.setitem(sys.modules, "apex", types.SimpleNamespace(amp=amp))


def with_amp(level="O1"):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        (1, 8, 8),
        10,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        clip_values=(0, 1),
        use_amp=True,
        opt_level=level,
    )


def test_use_amp_is_float16_on_a_gpu_and_nothing_on_a_cpu_as_in_art(apex, data, monkeypatch):
    classifier, same = with_amp(), with_amp()
    trained(classifier, data, 1)
    trained(same, data, 1, precision="float32")
    assert torch.equal(weights(classifier)["1.weight"], weights(same)["1.weight"])
    assert ClassifierAdapter(classifier).precision is None
    monkeypatch.setattr(classifier, "_device", torch.device("cuda"))
    assert ClassifierAdapter(classifier).precision == "fp16"


def test_narrow_weights_of_amp_are_refused(apex):
    with pytest.raises(UsageError, match=r"use_amp True with opt_level 'O2'.*allowed: 'O1'"):
        AdversarialTrainerLFRPyTorch(with_amp("O2"), **LFR)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"precision": "bfloat16"},
            "precision is 'bfloat16'; allowed: ",
        ),
        ({"precision": "fp16", "weight_perturbation": 0.01}, "weight_perturbation is 0.01 with"),
    ],
)
def test_what_cannot_be_is_refused(make_classifier, settings, problem):
    with pytest.raises(UsageError, match=problem):
        AdversarialTrainerLFRPyTorch(make_classifier(), **{**LFR, **settings})


def test_a_radius_that_bfloat16_rounds_away_is_told_of(make_classifier, data):
    with pytest.warns(UserWarning, match="radius is 0.001 with precision 'bf16', which rounds"):
        trained(make_classifier(), data, 1, precision="bf16", eps=0.004)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(make_classifier(), data, 1, precision="bf16", eps=0.1)
    assert np.isfinite(data.x).all()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"precision": "fp16", "estimator": "exact"}, "precision is 'fp16' with estimator 'exact'"),
        ({"precision": "bf16", "penalty": "cure", "lam": 1.0}, "precision is 'bf16' with penalty"),
        ({"precision": "fp16", "penalty": "llr", "lam": 1.0}, "precision is 'fp16' with penalty"),
    ],
)
def test_what_would_train_another_objective_is_refused(make_classifier, settings, problem):
    if settings["precision"] == "fp16" and not HAS_SCALER:
        pytest.skip(f"torch {torch.__version__} has no GradScaler for a CPU")
    with pytest.raises(UsageError, match=problem):
        AdversarialTrainerLFRPyTorch(make_classifier(), **{**LFR, **settings})


class SlopeOfTheLoss(Penalty):
    """||grad l(x)||_2 by double back-propagation, of a user's own making."""

    def parts(self, view, x, y, searched):
        gradient = view.differentiable_gradient(x, y)
        yield Part(1.0, gradient.flatten(1).norm(dim=1))


@pytest.mark.skipif(not HAS_SCALER, reason="torch without GradScaler for a CPU")
def test_a_penalty_of_ones_own_is_refused_in_its_first_step(make_classifier, data):
    classifier = make_classifier(batch_norm=False)
    before = weights(classifier)
    with pytest.raises(UsageError, match="precision is 'fp16' with double back-propagation"):
        trained(classifier, data, 1, precision="fp16", penalty=SlopeOfTheLoss(), lam=0.1)
    assert all(torch.equal(v, before[k]) for k, v in weights(classifier).items())


def test_trades_finds_in_bfloat16_what_it_finds_in_float32(make_classifier, data):
    settings = {"penalty": "trades", "lam": 3.0, "warm_start": False, "warmup_epochs": 0}
    narrow = trained(make_classifier(dropout=0.0), data, 1, precision="bf16", **settings)
    full = trained(make_classifier(dropout=0.0), data, 1, **settings)
    assert narrow.history[0]["flatness"] == pytest.approx(full.history[0]["flatness"], rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_autocast_around_fit_changes_nothing(make_classifier, data, precision):
    inside, outside = make_classifier(), make_classifier()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained(inside, data, 2, precision=precision)
    trained(outside, data, 2, precision=precision)
    assert all(torch.equal(v, weights(outside)[k]) for k, v in weights(inside).items())


@pytest.mark.parametrize("precision", ["bf16", FLOAT16])
def test_a_pickled_trainer_goes_on_to_the_same_bits(make_classifier, data, precision):
    whole, first = make_classifier(), make_classifier()
    trained(whole, data, 2, precision=precision)
    again = pickle.loads(pickle.dumps(trained(first, data, 1, precision=precision)))
    again.fit(data.x[:300], data.y[:300], batch_size=64, nb_epochs=1)
    found = weights(again.classifier)
    assert all(torch.equal(v, found[k]) for k, v in weights(whole).items())


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_a_first_layer_that_is_parametrized_is_kept_in_float32(make_classifier, data, norm):
    model = nn.Sequential(
        getattr(nn.utils.parametrizations, norm)(nn.Conv2d(1, 4, 3)),
        nn.Flatten(),
        nn.Linear(144, 10),
    )
    types = []
    model[0].register_forward_hook(lambda _, __, out: types.append(out.dtype))
    trained(make_classifier(model=model), data, 1, precision="bf16")
    assert types.count(torch.bfloat16) == 0


def test_a_saved_network_says_in_what_it_was_trained(make_classifier, data, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    trained(make_classifier(), data, 1).save(tmp_path / "a.safetensors")
    assert network_info(tmp_path / "a.safetensors").settings["precision"] == "bf16"


@pytest.mark.skipif(not HAS_SCALER, reason="torch without GradScaler for a CPU")
def test_weights_that_held_nan_are_named(make_classifier, data):
    classifier = make_classifier()
    with torch.no_grad():
        classifier.model[6].weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"'6\.weight' held NaN when training began"):
        trained(classifier, data, 1, precision="fp16")
