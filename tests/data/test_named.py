"""Data by name: those that are known, files and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from art_lfr.data import NAMES, digits, load, load_folder
from art_lfr.data.named import SOURCES
from art_lfr.data.recipes import find_data


def test_digits_are_split_once_and_for_all() -> None:
    first, second, other = digits(), digits(), digits(seed=1)
    assert [len(first.x_train), len(first.x_validation), len(first.x_test)] == [1197, 150, 450]
    np.testing.assert_array_equal(first.x_test, second.x_test)
    assert not np.array_equal(first.x_test, other.x_test)
    assert first.x_train.dtype == np.float32
    assert (first.x_train.min(), first.x_train.max()) == (0.0, 1.0)
    assert np.bincount(first.y_test).min() > 30


def test_load_by_name_and_path(folder: Path) -> None:
    assert load("digits").digest == digits().digest
    assert len(load("digits", train=10, validation=5, test=3).y_validation) == 5
    assert load(folder, test=1).digest == load_folder(folder, test=1).digest
    np.savez(folder / "d.npz", x_train=np.zeros((4, 3, 3)), y_train=[0, 1, 2, 3])
    assert load(folder / "d.npz", validation=1).y_validation.tolist() == [3]


def test_unknown_names(tmp_path: Path) -> None:
    for bad in ("", "imagenet", str(tmp_path / "absent"), Path("mnst")):
        with pytest.raises(
            ValueError, match=r"name is .*; allowed: 'digits', 'mnist', .*npz file, or a folder"
        ):
            load(bad)
    assert ("digits", *SOURCES) == NAMES
    for name in NAMES:
        assert find_data("name", name) == name


def test_names_are_read_as_people_write_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_data("--data", "CIFAR-10") == "cifar10"
    assert find_data("--data", "FashionMNIST") == "fashion-mnist"
    # A user's own files are never taken for a data set.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CIFAR10").mkdir()
    assert find_data("--data", "CIFAR10") == "CIFAR10"
    assert find_data("--data", "mnist.npz") == "mnist.npz"
    folder.rename("mnist")
    assert load(Path("mnist")).digest == load_folder("mnist").digest
