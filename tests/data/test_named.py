"""Data by name: those that are known, files and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from art_lfr.data import NAMES, check_data_name, digits, load, load_folder


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
            ValueError, match=r"name is .*; allowed: digits, mnist, .*npz file, or a"
        ):
            load(bad)
    for name in NAMES:
        check_data_name("name", name)
