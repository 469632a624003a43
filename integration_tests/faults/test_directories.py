"""Checkpoints where the disk is full, where the directory is bad, or where two runs want one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from lfr_testing import printed_by_python
from torch.utils.data import DataLoader, TensorDataset

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.storage.tensor_files import load_run

SCRIPTS = Path(__file__).with_name("scripts")
LFR = {"eps": 0.1, "max_iter": 1, "verbose": False}


@pytest.fixture
def small(data):
    return data.x[:64], data.y[:64]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    assert "OSError" in printed_by_python(SCRIPTS / "full_disk.py", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "last.pt"]
    assert [record["epoch"] for record in load_run(tmp_path / "last.pt")["history"]] == [1]


@pytest.mark.skipif(os.name == "nt", reason="directories are held on POSIX only")
def test_the_second_run_in_a_directory_is_refused(make_classifier, small, weights, same, tmp_path):
    other = make_classifier(seed=1)
    before, errors = weights(other), []

    def start_another(record: dict[str, float]) -> None:
        trainer = AdversarialTrainerLFRPyTorch(other, **LFR)
        with pytest.raises(ValueError, match="where another run is at work") as caught:
            trainer.fit(*small, nb_epochs=1, checkpoint_dir=tmp_path, resume=True)
        errors.append(str(caught.value))

    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
    trainer.fit(*small, nb_epochs=1, checkpoint_dir=tmp_path, callback=start_another)
    assert errors == [
        f"checkpoint_dir is {str(tmp_path)!r}, where another run is at work; allowed: a directory "
        "of its own"
    ]
    assert same(weights(other), before)
    # Given up at the end.
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
    trainer.fit(*small, nb_epochs=1, checkpoint_dir=tmp_path, resume=True)


def test_workers_of_a_loader_do_not_keep_it(make_classifier, small, tmp_path):
    x, y = (torch.as_tensor(values) for values in small)
    loader = DataLoader(TensorDataset(x, y), 32, num_workers=1, persistent_workers=True)
    for _ in range(2):  # the worker of the first call has the directory open, and lives on
        trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
        trainer.fit_loader(loader, nb_epochs=1, checkpoint_dir=tmp_path, resume=True)
    assert loader._iterator is not None


def test_a_file_in_the_way_is_named(make_classifier, small, weights, same, tmp_path):
    classifier, way = make_classifier(), tmp_path / "file"
    before = weights(classifier)
    way.write_text("")
    for directory in (way, way / "below"):
        trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
        with pytest.raises(OSError, match=r"checkpoint_dir is .*file.*; allowed: a directory"):
            trainer.fit(*small, nb_epochs=1, checkpoint_dir=directory)
    assert same(weights(classifier), before)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write into any directory"
)
def test_a_read_only_directory_changes_nothing(make_classifier, small, weights, same, tmp_path):
    tmp_path.chmod(0o500)
    classifier = make_classifier()
    before = weights(classifier)
    with pytest.raises(OSError, match=r"checkpoint_dir is .*; allowed: a directory that can be"):
        AdversarialTrainerLFRPyTorch(classifier, **LFR).fit(
            *small, nb_epochs=1, checkpoint_dir=tmp_path
        )
    tmp_path.chmod(0o700)
    assert same(weights(classifier), before)


def test_a_missing_directory_is_made(make_classifier, small, tmp_path):
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
    trainer.fit(*small, nb_epochs=1, checkpoint_dir=tmp_path / "a" / "b")
    assert torch.load(tmp_path / "a" / "b" / "last.pt", weights_only=True)["history"]
