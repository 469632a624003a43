"""Ascents that start where those of the epoch before ended."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from art.data_generators import PyTorchDataGenerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.data import random_flip
from art_lfr.penalties import flatness

LFR = {"eps": 0.1, "max_iter": 1, "eps_step": 0.04, "warmup_epochs": 2.0, "verbose": False}


@pytest.fixture
def ascents(monkeypatch):
    """The (start, end) of each image in every ascent, by the image's bytes."""
    seen: dict[bytes, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def recording(search):
        def record(model, criterion, x, y, **keywords):
            found = search(model, criterion, x, y, **keywords)
            ends = found if isinstance(found, torch.Tensor) else found.point
            for image, start, end in zip(x, keywords["start"], ends, strict=True):
                seen.setdefault(image.numpy().tobytes(), []).append((start, end))
            return found

        return record

    for name in ("find_least_flat_point", "last_point"):
        monkeypatch.setattr(flatness, name, recording(getattr(flatness, name)))
    return seen


def trainer_of(classifier, **settings):
    return AdversarialTrainerLFRPyTorch(classifier, **{**LFR, "warm_start": True, **settings})


def test_each_ascent_starts_where_the_last_one_of_its_image_ended(make_classifier, data, ascents):
    trainer = trainer_of(make_classifier())
    for epochs in (2, 1):
        trainer.fit(data.x[:100], data.y[:100], batch_size=32, nb_epochs=epochs)
    assert len(ascents) == 100
    # Up to the byte that each value is kept in.
    for first, second, third in ascents.values():
        assert float((second[0] - first[1]).abs().max()) < 0.0005
        assert float((third[0] - second[1]).abs().max()) < 0.0005
    moved = [float((end - start).abs().max()) for start, end in (a[1] for a in ascents.values())]
    assert max(moved) > 0.01  # the ascent goes on from there


def test_without_it_each_starts_beside_its_image(make_classifier, data, ascents):
    trainer = trainer_of(make_classifier(), warm_start=False)
    trainer.fit(data.x[:100], data.y[:100], batch_size=32, nb_epochs=2)
    for image, calls in ascents.items():
        x = torch.from_numpy(np.frombuffer(image, dtype=np.float32).copy()).view(1, 8, 8)
        assert all(float((start - x).abs().max()) < 0.01 for start, _ in calls)


def test_few_steps_reach_as_far_as_many(make_classifier, data):
    """The point of it: the flatness that one step finds in a trained network's later epochs."""

    def found(**settings):
        classifier = make_classifier(lr=1e-4)  # weights that hardly move: one landscape
        trainer = trainer_of(classifier, warmup_epochs=0.0, **settings)
        trainer.fit(data.x[:128], data.y[:128], batch_size=64, nb_epochs=8)
        return trainer.history[-1]["flatness"]

    cold, warm, long = found(warm_start=False), found(), found(warm_start=False, max_iter=8)
    assert warm > cold + 0.5 * (long - cold) > cold


def test_parts_of_a_batch_have_their_own_points(make_classifier, data, weights):
    def run(largest):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
        classifier = make_classifier(model=model.double())
        trainer = trainer_of(classifier, max_physical_batch_size=largest)
        trainer.fit(data.x[:100], data.y[:100], batch_size=50, nb_epochs=3)
        return weights(classifier)

    whole, parts = run(None), run(15)
    assert all(torch.allclose(whole[k], parts[k], atol=1e-9, rtol=0) for k in whole)


def test_other_data_start_anew(make_classifier, data, ascents):
    trainer = trainer_of(make_classifier())
    trainer.fit(data.x[:64], data.y[:64], batch_size=32, nb_epochs=1)
    trainer.fit(data.x[100:200], data.y[100:200], batch_size=32, nb_epochs=1)
    for image, ((start, _),) in ascents.items():
        x = torch.from_numpy(np.frombuffer(image, dtype=np.float32).copy()).view(1, 8, 8)
        assert float((start - x).abs().max()) < 0.01


def test_images_without_a_point_do_without(make_classifier, data, ascents):
    """With lam 0 there is no ascent, and parts whose labels are all ignored have none either."""
    trainer = trainer_of(make_classifier(), lam=0.0)
    trainer.fit(data.x[:64], data.y[:64], nb_epochs=2)
    assert not ascents
    ignoring = make_classifier(loss=nn.CrossEntropyLoss(ignore_index=3))
    trainer = trainer_of(ignoring, max_physical_batch_size=4)
    y = np.where(np.arange(64) < 8, 1, 3)
    trainer.fit(data.x[:64], y, batch_size=64, nb_epochs=3)
    assert math.isfinite(trainer.history[-1]["loss"])
    late = [calls for calls in ascents.values() if len(calls) < 3]
    assert late  # some had no ascent in an epoch, and then start beside their image
    for image, calls in ascents.items():
        x = torch.from_numpy(np.frombuffer(image, dtype=np.float32).copy()).view(1, 8, 8)
        assert float((calls[0][0] - x).abs().max()) < 0.01


def test_mirrored_images_start_where_their_mirror_image_ended(make_classifier, data, ascents):
    trainer = trainer_of(make_classifier(), augment=random_flip)
    trainer.fit(data.x[:60], data.y[:60], batch_size=32, nb_epochs=4)
    both = 0
    for image in data.x[:60]:
        first, second = (np.ascontiguousarray(v).tobytes() for v in (image, image[..., ::-1]))
        plain, mirrored = ascents.get(first, []), ascents.get(second, [])
        assert len(plain) + len(mirrored) == 4
        if plain and mirrored:  # the start of one view is the end of some epoch of the other
            both += 1
            ends = [e for _, e in plain] + [e.flip(-1) for _, e in mirrored]
            starts = [s for s, _ in plain] + [s.flip(-1) for s, _ in mirrored]
            near = sum(any(float((s - e).abs().max()) < 0.0005 for e in ends) for s in starts)
            assert near >= 3  # all but the very first one
    assert both > 30


class Indexed(TensorDataset):
    """(x, y, index)."""

    def __getitem__(self, index):
        return (*super().__getitem__(index), index)


def loader_of(data, count, kind, **keywords):
    dataset = kind(torch.tensor(data.x[:count]), torch.tensor(data.y[:count]))
    return DataLoader(dataset, batch_size=32, **keywords)


def test_a_loader_that_gives_indices_goes_on(make_classifier, data, ascents):
    trainer = trainer_of(make_classifier())
    generator = torch.Generator().manual_seed(0)
    loader = loader_of(data, 97, Indexed, shuffle=True, generator=generator)  # a last one of 1
    trainer.fit_loader(loader, nb_epochs=2)
    assert len(ascents) == 97
    for first, second in ascents.values():
        assert float((second[0] - first[1]).abs().max()) < 0.0005


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (lambda i: i + 5, "to 6[0-9] with a data set of 64"),
        (float, "integers of shape"),
        (lambda i: "a", "integers of shape"),
        (lambda i: -i, "indices from -[1-9]"),
        (lambda i: i > 5, "integers of shape"),
        (lambda i: [i], "integers of shape"),
        (lambda i: i % 8, "index [0-7] for two samples of different y"),
    ],
    ids=["too large", "a number", "a word", "negative", "a flag", "a list", "a group"],
)
def test_indices_that_are_none_are_refused(make_classifier, data, weights, same, index, message):
    class Wrong(TensorDataset):
        def __getitem__(self, i):
            return (*super().__getitem__(i), index(i))

    classifier = make_classifier()
    before = weights(classifier)
    error = TypeError if "shape" in message else ValueError
    with pytest.raises(error, match=message):
        trainer_of(classifier).fit_loader(loader_of(data, 64, Wrong))
    if index(1) != 6 and index(1) != -1:
        assert same(before, weights(classifier))


def darker(x, generator):
    return 0.9 * x


@pytest.mark.parametrize("source", ["loader", "generator", "augment"])
def test_where_it_cannot_go_on_it_says_so_once(make_classifier, data, weights, same, source):
    def fit(trainer, epochs):
        if source == "augment":
            trainer.fit(data.x[:64], data.y[:64], nb_epochs=epochs)
        elif source == "loader":
            trainer.fit_loader(loader_of(data, 64, TensorDataset), nb_epochs=epochs)
        else:
            loader = loader_of(data, 64, TensorDataset)
            trainer.fit_generator(PyTorchDataGenerator(loader, 64, 32), nb_epochs=epochs)

    settings = {"augment": darker} if source == "augment" else {}
    reason = "augment does not say" if source == "augment" else "batches do not say which sample"
    trainer = trainer_of(make_classifier(), warm_start=None, **settings)
    with pytest.warns(
        UserWarning, match=f"each ascent starts anew: .*{reason}.*max_iter, now 1"
    ) as told:
        fit(trainer, 2)
    assert {warning.filename for warning in told} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(trainer, 1)
        fit(trainer_of(make_classifier(), warm_start=False, warmup_epochs=0, **settings), 1)
    classifier = make_classifier()
    before = weights(classifier)
    with pytest.raises(ValueError, match=f"warm_start is True, but .*{reason}"):
        fit(trainer_of(classifier, **settings), 1)
    assert same(before, weights(classifier))


@pytest.mark.parametrize("penalty", ["adversarial-training", "trades"])
def test_other_searches_go_on_too(make_classifier, data, penalty):
    def found(**settings):
        trainer = trainer_of(
            make_classifier(lr=1e-4),
            penalty=penalty,
            lam=6.0 if penalty == "trades" else None,
            warmup_epochs=0.0,
            **settings,
        )
        trainer.fit(data.x[:128], data.y[:128], batch_size=64, nb_epochs=8)
        return trainer.history[-1]["loss"]

    cold, warm, long = found(warm_start=False), found(), found(warm_start=False, max_iter=8)
    assert warm > cold + 0.5 * (long - cold) > cold


def test_what_does_not_go_with_it_is_refused(make_classifier, data, weights, same):
    classifier = make_classifier()
    with pytest.raises(ValueError, match="warm_start is True with penalty 'llr'"):
        trainer_of(classifier, penalty="llr", lam=1.0)
    with pytest.raises(TypeError, match="warm_start is 1"):
        trainer_of(classifier, warm_start=1)


def test_steps_that_miss_the_slopes_are_told_of_once(make_classifier, data):
    def fit(**settings):
        trainer = trainer_of(make_classifier(), eps=0.3, warmup_epochs=1.0, lam=0.001, **settings)
        pair = data.x[200:260], data.y[200:260]
        trainer.fit(data.x[:200], data.y[:200], batch_size=32, nb_epochs=6, validation_data=pair)
        return trainer.history[-1]

    with pytest.warns(RuntimeWarning, match="false robustness: in epoch .*max_iter .now 1") as told:
        record = fit(eps_step=1e-6, warm_start=False)
    assert sum("false robustness" in str(warning.message) for warning in told) == 1
    assert record["train_subset_flatness"] > 3 * record["flatness"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fit(max_iter=5)
        fit(penalty="input-gradient", warm_start=None)  # which looks at the image alone
