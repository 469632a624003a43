"""The transformer defence: a second classifier is trained, the first stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from art.defences.transformer.transformer import Transformer

from art_lfr import AdversarialTrainerLFRPyTorch, LocalFlatnessRegularization

LFR = {"eps": 0.1, "max_iter": 2, "verbose": False}


def test_it_trains_the_second_and_leaves_the_first(make_classifier, data, weights, same):
    first, second, third = make_classifier(), make_classifier(1), make_classifier(1)
    first.fit(data.x, data.y, nb_epochs=3, batch_size=64)
    before, flag = weights(first), first.model.training
    labels = np.argmax(first.predict(data.x[:200]), axis=1)
    first.model.train(flag)
    defence = LocalFlatnessRegularization(first, nb_epochs=2, batch_size=50, **LFR)
    assert isinstance(defence, Transformer)
    assert not defence.is_fitted
    x = data.x[:200].copy()
    assert defence(x, second) is second
    assert defence.is_fitted
    assert defence.get_classifier() is first
    assert np.array_equal(x, data.x[:200])
    assert same(weights(first), before)
    assert first.model.training == flag
    # Without labels the first classifier's predictions are learnt, and nothing else differs.
    AdversarialTrainerLFRPyTorch(third, **LFR).fit(x, labels, nb_epochs=2, batch_size=50)
    assert same(weights(second), weights(third))
    assert not same(weights(second), weights(make_classifier(1)))


def test_labels_can_be_given(make_classifier, data, weights, same):
    first, second, third = make_classifier(), make_classifier(1), make_classifier(1)
    defence = LocalFlatnessRegularization(first, nb_epochs=1, **LFR)
    defence(data.x[:100], second, data.one_hot[:100])
    AdversarialTrainerLFRPyTorch(third, **LFR).fit(data.x[:100], data.y[:100], nb_epochs=1)
    assert same(weights(second), weights(third))


def test_one_object_twice_or_shared_parameters_are_refused(make_classifier, data, weights, same):
    first = make_classifier()
    before = weights(first)
    defence = LocalFlatnessRegularization(first, nb_epochs=1, **LFR)
    with pytest.raises(ValueError, match=r"transformed_classifier .*classifier"):
        defence(data.x, first, data.y)
    with pytest.raises(ValueError, match=r"transformed_classifier shares '0.weight'"):
        defence(data.x, make_classifier(model=first.model), data.y)
    tied = make_classifier(seed=1)
    tied.model[6].weight = first.model[6].weight
    with pytest.raises(ValueError, match=r"transformed_classifier shares '6.weight'"):
        defence(data.x, tied, data.y)
    assert same(weights(first), before)


def test_bad_arguments_are_refused_when_it_is_made(make_classifier, data):
    with pytest.raises(TypeError, match="did you mean 'nb_epochs'"):
        LocalFlatnessRegularization(make_classifier(), nb_epoch=3)
    with pytest.raises(ValueError, match="nb_epochs is 0"):
        LocalFlatnessRegularization(make_classifier(), nb_epochs=0)
    with pytest.raises(TypeError, match="classifier is a str"):
        LocalFlatnessRegularization("model")
    with pytest.raises(TypeError, match=r"transformed_classifier is a str"):
        LocalFlatnessRegularization(make_classifier())(data.x, "model")
    with pytest.raises(ValueError, match=r"transformed_classifier has optimizer None"):
        LocalFlatnessRegularization(make_classifier())(
            data.x, make_classifier(seed=1, optimizer=False)
        )
