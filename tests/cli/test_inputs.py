"""What `--data` names, as the commands read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lfr_testing import save_image

from art_lfr.cli.inputs import load_data
from art_lfr.data import load_folder


def test_data_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label, name in enumerate(["ant", "bee", "cat"]):
        save_image(tmp_path / "pets" / "train" / name / "a.png", colour=50 * label)
    np.savez(tmp_path / "pets" / "d.npz", x_train=np.zeros((4, 3, 3)), y_train=[0, 1, 2, 3])
    monkeypatch.chdir(tmp_path)
    assert load_data("pets").digest == load_folder(tmp_path / "pets").digest
    assert load_data("pets/d.npz").y_train.tolist() == [0, 1, 2, 3]


def test_data_that_is_unknown_or_absent() -> None:
    with pytest.raises(
        ValueError, match="--data is 'imagenet'; allowed: 'digits', 'mnist', 'fashion"
    ):
        load_data("imagenet")
    with pytest.raises(FileNotFoundError, match=r"'absent\.npz' does not exist"):
        load_data("absent.npz")
