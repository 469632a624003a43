"""`trainer.save` and `fit(save_to=)`: what is loaded again is what was trained."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate
from art_lfr.data import digits
from art_lfr.errors import PlaceError, UsageError
from art_lfr.models import digits_cnn, load_network, network_info


@pytest.fixture(scope="module")
def data():
    return digits().take(train=256, validation=32, test=64)


def classifier_of(network, clip_values=(0.0, 1.0), **keywords):
    return PyTorchClassifier(
        network,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=clip_values,
        **keywords,
    )


def trainer_of(classifier, **keywords):
    settings = {"eps": 0.1, "max_iter": 1, "verbose": False, **keywords}
    return AdversarialTrainerLFRPyTorch(classifier, **settings)


PREPROCESSING = {
    "none": None,
    "numbers": (0.3, 0.4),
    "by channel": (np.float32([0.3]), np.float32([0.4])),
    "by pixel": (np.full((1, 8, 8), 0.3, np.float32), np.full((1, 8, 8), 0.4, np.float32)),
}


@pytest.mark.parametrize("name", PREPROCESSING)
def test_raw_inputs_to_the_logits_of_the_classifier(tmp_path, data, name):
    classifier = classifier_of(digits_cnn(), preprocessing=PREPROCESSING[name])
    trainer = trainer_of(classifier)
    trainer.fit(data.x_train, data.y_train, nb_epochs=1, save_to=tmp_path / "a.safetensors")
    network = load_network(tmp_path / "a.safetensors")
    logits = network(torch.tensor(data.x_test)).detach().numpy()
    np.testing.assert_allclose(logits, classifier.predict(data.x_test), rtol=1e-5, atol=1e-6)
    x, y = data.x_test[:20], data.y_test[:20]
    pairs = [
        evaluate(model, x, y, eps=0.1, attacks="FGSM", bounds=(0.0, 1.0))
        for model in (classifier, network)
    ]
    assert pairs[0].flatness == pytest.approx(pairs[1].flatness, rel=1e-3)


def test_what_the_file_says(tmp_path, data):
    trainer = trainer_of(classifier_of(digits_cnn()), norm=2, lam=0.07, penalty="lfr-held", seed=4)
    trainer.save(tmp_path / "untrained.safetensors")
    assert network_info(tmp_path / "untrained.safetensors").metrics == {}
    validation = data.x_validation, data.y_validation
    trainer.fit(data.x_train, data.y_train, validation_data=validation, nb_epochs=2, batch_size=64)
    trainer.save(tmp_path / "net.safetensors", data="digits")
    info = network_info(tmp_path / "net.safetensors")
    assert (info.model, info.classes, info.input_shape) == ("digits-cnn", 10, (1, 8, 8))
    assert (info.eps, info.norm, info.bounds, info.preprocessing) == (0.1, "2", (0.0, 1.0), {})
    assert info.metrics == trainer.history[-1]
    settings = {"lam": 0.07, "penalty": "lfr-held", "max_iter": 1, "seed": 4, "epochs": 2}
    assert (settings | {"batch_size": 64, "optimizer": "SGD"}).items() <= info.settings.items()
    assert info.data == "digits"
    # The check sum is that of the training data.
    again = trainer_of(classifier_of(digits_cnn()))
    again.fit(data.x_train, data.y_train, nb_epochs=1, save_to=tmp_path / "b.safetensors")
    assert network_info(tmp_path / "b.safetensors").data_digest == info.data_digest
    again.fit(data.x_train[1:], data.y_train[1:], nb_epochs=1, save_to=tmp_path / "b.safetensors")
    assert network_info(tmp_path / "b.safetensors").data_digest != info.data_digest
    pickle.loads(pickle.dumps(trainer)).save(tmp_path / "c.safetensors", data="digits")
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "net.safetensors").read_bytes()


def test_bounds_by_pixel_and_none(tmp_path):
    high = np.full((1, 8, 8), 1.0, np.float32)
    high[0, 0, 0] = 2
    trainer_of(classifier_of(digits_cnn(), (0 * high, high))).save(tmp_path / "a.safetensors")
    low, found = network_info(tmp_path / "a.safetensors").bounds
    np.testing.assert_array_equal(found, high)
    np.testing.assert_array_equal(low, 0 * high)
    trainer_of(classifier_of(digits_cnn(), None)).save(tmp_path / "b.safetensors")
    assert network_info(tmp_path / "b.safetensors").bounds is None


def test_the_weights_that_fit_leaves_are_saved(tmp_path, data):
    """Averaged or best ones too."""
    network = digits_cnn()
    trainer = trainer_of(classifier_of(network), ema_decay=0.5, best_metric="loss")
    trainer.fit(data.x_train, data.y_train, nb_epochs=2, save_to=tmp_path / "a.safetensors")
    found = load_network(tmp_path / "a.safetensors").state_dict()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


class WithExtraState(nn.Sequential):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass

    def forward(self, x):
        return super().forward(x)


class Brighter(PreprocessorPyTorch):
    def forward(self, x, y=None):
        return (1.1 * x).clamp(0, 1), y


REFUSED = {
    "another ending": (digits_cnn, {}, "a.pt", UsageError, "allowed: a name ending in .safetens"),
    "no such folder": (digits_cnn, {}, "none/a.safetensors", PlaceError, "save_to is "),
    "state": (
        lambda: nn.Sequential(WithExtraState(nn.Flatten(), nn.Linear(64, 10))),
        {},
        "a.safetensors",
        UsageError,
        "_extra_state' in its state, a dict",
    ),
    "another preprocessing": (
        digits_cnn,
        {"preprocessing_defences": Brighter()},
        "a.safetensors",
        UsageError,
        "has the preprocessing",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_training(tmp_path, data, name):
    make, keywords, place, kind, says = REFUSED[name]
    network = make()
    before = {key: value.clone() for key, value in network.named_parameters()}
    trainer = trainer_of(classifier_of(network, **keywords))
    with pytest.raises(kind, match=says):
        trainer.fit(data.x_train, data.y_train, nb_epochs=1, save_to=tmp_path / place)
    assert all(torch.equal(value, before[key]) for key, value in network.named_parameters())
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_makes_another_network(tmp_path):
    trainer = trainer_of(classifier_of(digits_cnn()))
    with pytest.raises(UsageError, match="model is 'small-cnn', which makes a network with other"):
        trainer.save(tmp_path / "a.safetensors", model="small-cnn")
    assert list(tmp_path.iterdir()) == []
