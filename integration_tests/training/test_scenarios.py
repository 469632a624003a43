"""ART's own scenarios for its trainers, with this one in their place."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from art.attacks.evasion import (
    AutoProjectedGradientDescent,
    FastGradientMethod,
    ProjectedGradientDescent,
    SquareAttack,
)
from art.data_generators import PyTorchDataGenerator
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
from art.defences.trainer import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from art_lfr import AdversarialTrainerLFRPyTorch, lfr_loss
from art_lfr.art.classifier import ClassifierAdapter

LFR = {"eps": 0.1, "max_iter": 3, "verbose": False}


def accuracy(classifier, x, y):
    return float(np.mean(np.argmax(classifier.predict(x), axis=1) == y))


@pytest.mark.parametrize("labels", ["indices", "one-hot"])
def test_fit_raises_accuracy_and_leaves_x_alone(make_classifier, data, labels):
    classifier = make_classifier(lr=0.02)
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
    assert isinstance(trainer, Trainer)
    assert trainer.get_classifier() is classifier
    x, before = data.x.copy(), accuracy(classifier, data.x_test, data.y_test)
    y = data.y if labels == "indices" else data.one_hot
    trainer.fit(x, y, nb_epochs=6, batch_size=64, validation_data=(data.x_test, data.y_test))
    assert np.array_equal(x, data.x)
    assert before < 0.3
    assert np.mean(np.argmax(trainer.predict(data.x_test), axis=1) == data.y_test) > 0.85
    assert trainer.history[-1]["validation_accuracy"] == pytest.approx(
        accuracy(classifier, data.x_test, data.y_test)
    )


def test_label_formats_give_identical_weights(make_classifier, data, weights, same):
    found = []
    formats = data.y, data.one_hot, data.y[:, None], data.y.astype(np.float64), list(data.y)
    for y in formats:
        classifier = make_classifier()
        trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
        trainer.fit(data.x[:200], y[:200], nb_epochs=1)
        found.append(weights(classifier))
    assert all(same(found[0], other) for other in found[1:])


@pytest.mark.parametrize("labels", ["indices", "one-hot"])
def test_fit_generator(make_classifier, data, labels):
    classifier = make_classifier()
    y = data.y if labels == "indices" else data.one_hot
    # 513 samples: the last batch has one, which BatchNorm alone could not take.
    dataset = TensorDataset(torch.tensor(data.x[:513]), torch.tensor(y[:513]))
    generator = PyTorchDataGenerator(DataLoader(dataset, batch_size=64), size=513, batch_size=64)
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
    trainer.fit_generator(generator, nb_epochs=4)
    assert len(trainer.history) == 4
    assert accuracy(classifier, data.x_test, data.y_test) > 0.85


def test_pipeline_with_art_attacks_before_and_after(make_classifier, data):
    """Train standard and LFR, attack both with three of ART's attacks: LFR holds better."""
    standard, robust = (make_classifier(dropout=0.0, batch_norm=False) for _ in range(2))
    torch.manual_seed(0)
    standard.fit(data.x, data.y, nb_epochs=15, batch_size=64)
    trainer = AdversarialTrainerLFRPyTorch(robust, **LFR, warmup_epochs=4)
    trainer.fit(data.x, data.y, nb_epochs=15, batch_size=64)
    x, y = data.x_test, data.y_test
    for make_attack in (
        lambda c: ProjectedGradientDescent(c, eps=0.1, eps_step=0.02, max_iter=10, verbose=False),
        lambda c: AutoProjectedGradientDescent(
            c, eps=0.1, eps_step=0.1, max_iter=10, batch_size=200, verbose=False
        ),
        lambda c: SquareAttack(c, eps=0.1, max_iter=300, batch_size=200, verbose=False),
    ):
        held = []
        for classifier in (standard, robust):
            adversarial = make_attack(classifier).generate(x, y)
            assert np.abs(adversarial - x).max() <= 0.1 + 1e-6
            held.append(accuracy(classifier, adversarial, y))
        assert held[1] > held[0] + 0.03


def test_the_clean_term_can_be_taken_on_an_attack(make_classifier, data, weights, same):
    found = []
    for attacked in (False, True, True):
        classifier = make_classifier(dropout=0.0)
        attacks = [
            FastGradientMethod(classifier, eps=0.1),
            ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.05, max_iter=3, verbose=False),
        ]
        trainer = AdversarialTrainerLFRPyTorch(
            classifier, **LFR, attack=attacks if attacked else None, ratio=0.5
        )
        trainer.fit(data.x[:256], data.y[:256], nb_epochs=2)
        found.append((weights(classifier), trainer.history[-1]["clean_loss"]))
    assert same(found[1][0], found[2][0])  # reproducible, though ART draws from NumPy's state
    assert not same(found[0][0], found[1][0])
    assert found[1][1] > found[0][1] * 1.05  # attacked examples are harder


def test_preprocessing_equals_normalisation_inside_the_model(make_classifier, data, weights):
    """eps is in raw units: mean and std in the classifier or in the network, no difference."""

    class Normalise(nn.Module):
        def forward(self, x):
            return (x - 0.3) / 0.2

    results = []
    for inside in (False, True):
        torch.manual_seed(0)
        core = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        core = core.double()
        classifier = make_classifier(
            model=nn.Sequential(Normalise(), core)
            if inside
            else nn.Sequential(nn.Identity(), core),
            preprocessing=(0.0, 1.0) if inside else (np.array(0.3), np.array(0.2)),
        )
        trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
        trainer.fit(data.x.astype(np.float64), data.y, nb_epochs=2)
        results.append({k.split(".", 1)[1]: v for k, v in weights(classifier).items()})
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_preprocessing_in_training_alone_is_seen_by_the_penalty(make_classifier, data, norm):
    """The search, in eval mode, runs without the defence; the slope must be that of training."""

    class Mirrored(PreprocessorPyTorch):
        params = ()

        def forward(self, x, y=None):
            return x.flip(-1), y

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()
    defence = Mirrored(apply_fit=True, apply_predict=False)
    classifier = make_classifier(model=model, preprocessing_defences=defence)
    x = torch.from_numpy(data.x[:20].astype(np.float64))
    y = torch.from_numpy(data.y[:20])
    module = ClassifierAdapter(classifier).module.train()
    terms = lfr_loss(module, x, y, eps=1e-6, norm=norm, steps=0, radius=1e-4)
    x.requires_grad_(True)
    loss = nn.functional.cross_entropy(model(x.flip(-1)), y, reduction="sum")
    slope = torch.autograd.grad(loss, x)[0].flatten(1)
    expected = slope.norm(dim=1, p={np.inf: 1, 2: 2, 1: np.inf}[norm]).mean()
    torch.testing.assert_close(terms.flatness.detach(), expected, rtol=1e-3, atol=0)


def test_the_trained_classifier_survives_save_pickle_and_clone(
    make_classifier, data, tmp_path, monkeypatch
):
    from art import config

    monkeypatch.setattr(config, "ART_DATA_PATH", str(tmp_path))
    classifier = make_classifier()
    AdversarialTrainerLFRPyTorch(classifier, **LFR).fit(data.x, data.y, nb_epochs=1)
    expected = classifier.predict(data.x_test)

    classifier.save("lfr", path=str(tmp_path))
    other = make_classifier(seed=5)
    other.model.load_state_dict(torch.load(tmp_path / "lfr.model", weights_only=True))
    assert np.array_equal(other.predict(data.x_test), expected)

    assert np.array_equal(pickle.loads(pickle.dumps(classifier)).predict(data.x_test), expected)
    clone = classifier.clone_for_refitting()
    AdversarialTrainerLFRPyTorch(clone, **LFR).fit(data.x, data.y, nb_epochs=1)
    assert np.array_equal(classifier.predict(data.x_test), expected)


def test_modes_flags_and_global_random_state_are_left_as_found(make_classifier, data):
    classifier = make_classifier()
    frozen, batch_norm = classifier.model[0].weight, classifier.model[1]
    frozen.requires_grad_(False)
    classifier.model.train()
    batch_norm.eval()
    before = frozen.clone()
    torch.manual_seed(3)
    np.random.seed(4)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(4)
    AdversarialTrainerLFRPyTorch(classifier, **LFR).fit(data.x, data.y, nb_epochs=1)
    assert (torch.rand(1), np.random.rand()) == expected
    assert torch.equal(frozen, before)
    assert not frozen.requires_grad
    assert classifier.model.training
    assert not batch_norm.training
    assert classifier.model[6].weight.requires_grad


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=torch.linspace(0.5, 1.5, 10), label_smoothing=0.1),
        nn.MultiMarginLoss(),
        nn.MSELoss(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_the_classifier_s_own_loss_is_trained(make_classifier, data, loss):
    classifier = make_classifier(loss=loss, dropout=0.0, batch_norm=False)
    trainer = AdversarialTrainerLFRPyTorch(classifier, **{**LFR, "lam": 0.01})
    trainer.fit(data.x, data.y, nb_epochs=8, batch_size=64)
    assert accuracy(classifier, data.x_test, data.y_test) > 0.8


@pytest.mark.parametrize("norm", [np.inf, "2", 1])
def test_tabular_rows_with_bounds_per_feature(make_classifier, data, norm):
    """Rows, not images; each feature has its own valid range, given as ART takes it."""
    widths = np.linspace(0.5, 2.0, 64, dtype=np.float32)
    x = data.x.reshape(-1, 64) * widths
    classifier = make_classifier(
        model=nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
        input_shape=(64,),
        clip_values=(np.zeros(64, np.float32), widths),
    )
    trainer = AdversarialTrainerLFRPyTorch(classifier, **{**LFR, "norm": norm})
    trainer.fit(x, data.y, nb_epochs=6, batch_size=64)
    assert accuracy(classifier, x, data.y) > 0.8
    with pytest.raises(ValueError, match="x has values"):
        trainer.fit(x + 1.01 * widths * (np.arange(64) == 0), data.y)


def test_a_generator_whose_last_batch_joins_the_only_other(make_classifier, data):
    dataset = TensorDataset(torch.tensor(data.x[:65]), torch.tensor(data.y[:65]))
    generator = PyTorchDataGenerator(DataLoader(dataset, batch_size=64), size=65, batch_size=64)
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
    trainer.fit_generator(generator, nb_epochs=1)
    assert len(trainer.history) == 1
