"""Training on a torch DataLoader."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from art.data_generators import PyTorchDataGenerator
from lfr_testing import printed_by_python
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from art_lfr import AdversarialTrainerLFRPyTorch

LFR = {"eps": 0.1, "max_iter": 2, "verbose": False}


@pytest.mark.parametrize("source", ["fit", "fit_loader"])
def test_a_doubtful_unit_is_told_once_a_call_at_the_callers_line(make_classifier, data, source):
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **{**LFR, "eps": 1.5})
    x, y = data.x[:64], data.y[:64]
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if source == "fit":
                trainer.fit(x, y, nb_epochs=2, batch_size=32)
            else:
                loader = DataLoader(TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=32)
                trainer.fit_loader(loader, nb_epochs=2)
        told = [w for w in caught if "eps is 1.5" in str(w.message)]
        assert [w.filename for w in told] == [__file__]


class Digits(Dataset):
    """Digits with noise on top, drawn from torch's global generator, as augmentations draw it."""

    def __init__(self, x, y, noise=0.0):
        self.x, self.y, self.noise = torch.tensor(x), y, noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index] + self.noise * torch.rand(self.x[index].shape)
        return x.clamp(0, 1), self.y[index]


def train(classifier, loader, **keywords):
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
    trainer.fit_loader(loader, **{"nb_epochs": 2, **keywords})
    return trainer


def test_the_same_batches_give_the_same_weights_as_an_art_generator(
    make_classifier, data, weights, same
):
    # 129 samples: the last one joins the batch before it in both.
    dataset = TensorDataset(torch.tensor(data.x[:129]), torch.tensor(data.y[:129]))
    # Without dropout: a loader draws a seed for its workers from the generator of the masks.
    by_loader, by_generator = make_classifier(dropout=0.0), make_classifier(dropout=0.0)
    train(by_loader, DataLoader(dataset, batch_size=64))
    trainer = AdversarialTrainerLFRPyTorch(by_generator, **LFR)
    generator = PyTorchDataGenerator(DataLoader(dataset, batch_size=64), size=129, batch_size=64)
    trainer.fit_generator(generator, nb_epochs=2)
    assert same(weights(by_loader), weights(by_generator))


@pytest.mark.parametrize("workers", [0, 2])
def test_shuffling_and_augmentation_follow_the_seed_and_resume(
    make_classifier, data, weights, same, tmp_path, workers
):
    def loader():
        dataset = Digits(data.x[:200], data.y[:200], noise=0.1)
        return DataLoader(dataset, batch_size=64, shuffle=True, num_workers=workers)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    whole, again, resumed, other = (make_classifier() for _ in range(4))
    torch.set_rng_state(before)
    train(whole, loader(), nb_epochs=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    train(again, loader(), nb_epochs=3)
    assert same(weights(whole), weights(again))

    seen = []

    def interrupted(record):
        seen.append(record)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(resumed, loader(), nb_epochs=3, checkpoint_dir=tmp_path, callback=interrupted)
    fresh = make_classifier(seed=3)
    trainer = train(fresh, loader(), nb_epochs=3, checkpoint_dir=tmp_path, resume=True)
    assert [record["epoch"] for record in trainer.history] == [1, 2, 3]
    assert same(weights(whole), weights(fresh))

    AdversarialTrainerLFRPyTorch(other, **LFR, seed=1).fit_loader(loader(), nb_epochs=3)
    assert not same(weights(whole), weights(other))


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory as Linux counts it")
def test_memory_does_not_grow_with_the_data():
    # The allocator gives back what is freed, so that what is left is what is held.
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
    script = Path(__file__).parent / "scripts" / "memory_growth.py"
    first, second = map(float, printed_by_python(script, environment=environment).split())
    assert second - first < 8  # of 64 MiB more


def test_what_is_no_loader_is_refused_before_any_training(make_classifier, data, weights, same):
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield data.x[0], data.y[0]

    x, y = torch.tensor(data.x[:8]), torch.tensor(data.y[:8])
    classifier = make_classifier()
    before = weights(classifier)
    for loader, words in (
        ([(x, y)], "train_loader is a list; allowed: a torch.utils.data.DataLoader"),
        (DataLoader(Endless()), "train_loader has no length"),
        (DataLoader(TensorDataset(x[:0], y[:0])), "train_loader has no batch"),
        (DataLoader(TensorDataset(x)), r"gives a list; allowed: pairs \(x, y\)"),
        (DataLoader([{"x": a, "y": b} for a, b in zip(x, y, strict=True)]), "gives a dict"),
        (DataLoader(TensorDataset(x * 255, y)), "x of a batch has values"),
        (DataLoader(TensorDataset(x, y + 7)), "y of a batch has"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            train(classifier, loader)
    with pytest.raises(TypeError, match="'batch_size'; it takes train_loader"):
        train(classifier, DataLoader(TensorDataset(x, y)), batch_size=3)
    assert same(before, weights(classifier))


def test_a_batch_sampler_of_the_users_own(make_classifier, data):
    batches = [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    loader = DataLoader(Digits(data.x, data.y), batch_sampler=batches)
    trainer = train(make_classifier(), loader, validation_data=(data.x_test, data.y_test))
    assert len(trainer.history) == 2
    assert np.isfinite(trainer.history[-1]["validation_accuracy"])
