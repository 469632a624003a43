"""A module and an ART classifier around it give the same answers to labels and bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import evaluate
from art_lfr.art.module_or_classifier import adapter_of
from art_lfr.attacks.target import make_target

X = np.random.default_rng(0).random((6, 4), dtype=np.float32)
Y = np.arange(6) % 3


@pytest.fixture(params=["module", "classifier"])
def adapter(request):
    network = nn.Linear(4, 3)
    if request.param == "module":
        return adapter_of(network)
    return adapter_of(
        PyTorchClassifier(network, nn.CrossEntropyLoss(), (4,), 3, clip_values=(0.0, 1.0))
    )


@pytest.mark.parametrize(
    "labels",
    [Y, Y.astype(float), Y[:, None], np.eye(3)[Y], np.eye(3, dtype=bool)[Y], Y.tolist()],
    ids=["indices", "floats", "column", "one-hot", "boolean one-hot", "list"],
)
def test_labels_in_any_form(adapter, labels):
    assert adapter.labels(labels, 6, 3).tolist() == Y.tolist()


@pytest.mark.parametrize("row", [[1, 1, 0], [0, 0, 0], [0.25, 0.25, 0.5], [float("nan"), 0, 1]])
def test_rows_that_are_no_one_hot_rows(adapter, row):
    with pytest.raises(ValueError, match=r"y has shape .* and the row \[.*\]; allowed: .* one-hot"):
        adapter.labels(np.tile(row, (6, 1)), 6, 3)


def test_inputs_are_a_copy_of_the_models_type(adapter):
    inputs = adapter.inputs(X.astype(np.float64))
    assert inputs.dtype == torch.float32
    inputs[:] = -1
    assert float(X.min()) >= 0


def test_bounds(adapter):
    assert adapter.bounds == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"x has values from .* allowed: inside the bounds"):
        adapter.inputs(2 * X)


def test_neither(adapter):
    with pytest.raises(TypeError, match=r"model is a str; allowed: a torch.nn.Module, or an art\."):
        adapter_of("model")
    if adapter.classifier is not None:
        with pytest.raises(ValueError, match="bounds is None beside the model's clip_values"):
            adapter_of(adapter.classifier, bounds=None)
        with pytest.raises(ValueError, match=r"loss is .* beside the model's own"):
            adapter_of(adapter.classifier, loss=nn.NLLLoss())


def test_a_tensor_for_a_model_without_parameters_keeps_its_type():
    x = torch.from_numpy(X).double()
    assert adapter_of(nn.Flatten()).inputs(x).dtype == torch.float64
    assert adapter_of(nn.Flatten()).inputs(x.numpy()).dtype == torch.float32


def test_a_narrow_model_is_attacked_around_the_users_inputs():
    """In bfloat16 x itself would move by up to 1/256, and the ball with it."""
    target = make_target(nn.Linear(4, 3).bfloat16(), X, Y, eps=0.01)
    assert torch.equal(target.x, torch.from_numpy(X))


class Inverting(nn.Sequential):
    """ART calls the children of an nn.Sequential and so leaves this out."""

    def __call__(self, v):
        return super().__call__(1 - v)


def test_a_sequential_with_a_call_of_its_own_is_refused():
    network = Inverting(nn.Linear(4, 3))
    classifier = PyTorchClassifier(network, nn.CrossEntropyLoss(), (4,), 3)
    with pytest.raises(ValueError, match=r"has a Inverting as model, .* its own forward, __call__"):
        adapter_of(classifier)
    adapter_of(PyTorchClassifier(nn.Sequential(network), nn.CrossEntropyLoss(), (4,), 3))


def test_predict_takes_float64():
    classifier = PyTorchClassifier(nn.Linear(4, 3), nn.CrossEntropyLoss(), (4,), 3)
    found = adapter_of(classifier).predict(X.astype(np.float64))
    np.testing.assert_array_equal(found, classifier.predict(X))


def test_integer_logits_are_not_run_by_art():
    class Whole(nn.Linear):
        def forward(self, x):
            return (10 * super().forward(x)).long()

    adapter = adapter_of(PyTorchClassifier(Whole(4, 3), nn.CrossEntropyLoss(), (4,), 3))
    assert not adapter.is_run_by_art(torch.tensor(X))
    assert adapter.predict(X).shape == (6, 3)
    with pytest.raises(ValueError, match="needs the gradient in x that the model does not give"):
        evaluate(adapter.classifier, X, Y, eps=0.1, attacks="PGD-40", flatness_steps=0)
