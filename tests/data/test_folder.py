"""Images in folders of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lfr_testing import save_image

from art_lfr.data import load_folder


def test_a_folder(folder: Path) -> None:
    data = load_folder(folder)
    assert (data.name, data.classes) == ("pets", ("ant", "bee", "cat"))
    assert (data.x_train.shape, data.x_test.shape) == ((15, 1, 6, 4), (3, 1, 6, 4))
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(np.rint(data.x_train[:, 0, 0, 0] * 255) // 50, data.y_train)
    np.testing.assert_array_equal(np.bincount(data.y_train), [5, 5, 5])
    # Held-out images are not all of the last class.
    held_out = load_folder(folder, train=4, validation=8)
    assert len(set(held_out.y_validation)) == 3
    assert held_out.digest == data.take(train=4, validation=8).digest
    assert load_folder(folder, seed=1).digest != data.digest == load_folder(folder).digest


def test_a_validation_folder(folder: Path) -> None:
    save_image(folder / "validation" / "bee" / "a.jpg", colour=77)
    data = load_folder(folder)
    np.testing.assert_array_equal(data.y_validation, [1])
    assert len(data.y_train) == 15


def test_colour_and_grey_images_together(folder: Path) -> None:
    save_image(folder / "train" / "ant" / "colour.png", "RGB", (255, 0, 51))
    for name in ("ant", "bee", "cat"):
        save_image(folder / "test" / name / "a.PNG", "RGBA", (255, 0, 51, 0))
    data = load_folder(folder)
    assert data.x_train.shape == (16, 3, 6, 4)
    grey = data.x_train[(data.x_train[:, 0] == data.x_train[:, 1]).all((1, 2))]
    assert len(grey) == 15
    assert data.x_test[0, :, 0, 0] == pytest.approx([1.0, 0.0, 0.2])


def test_sizes(folder: Path) -> None:
    save_image(folder / "train" / "ant" / "z.png", size=(9, 9))
    with pytest.raises(ValueError, match=r"pixels and .* has .*; allowed: images of one size, or"):
        load_folder(folder)
    assert load_folder(folder, size=5).x_train.shape[1:] == (1, 5, 5)
    assert load_folder(folder, size=(6, 8)).x_train.shape[1:] == (1, 6, 8)
    for size in (0, (4,), 2.5, True, "8"):
        with pytest.raises(ValueError, match=r"size is .*; allowed: an integer >= 1, a pair"):
            load_folder(folder, size=size)  # type: ignore[arg-type]


def test_bad_folders(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_folder(folder / "absent")
    with pytest.raises(FileNotFoundError, match="has no folder train"):
        load_folder(folder / "train")
    (folder / "validation").mkdir()
    with pytest.raises(ValueError, match="has no folders of classes; allowed: ant, bee, cat"):
        load_folder(folder)
    (folder / "validation" / "dog").mkdir()
    with pytest.raises(ValueError, match="has the class 'dog', which train does not have"):
        load_folder(folder)
    (folder / "validation" / "dog").rename(folder / "validation" / "cat")
    with pytest.raises(ValueError, match="cat' has no images"):
        load_folder(folder)
    (folder / "validation" / "cat" / "a.png").write_bytes(b"no png")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: [^<]*; allowed"):
        load_folder(folder)
    save_image(folder / "validation" / "cat" / "a.png", "I;16")
    with pytest.raises(ValueError, match=r"a\.png has Pillow's mode 'I;16'; allowed: images of 8"):
        load_folder(folder)


def test_one_class_is_none(tmp_path: Path) -> None:
    save_image(tmp_path / "train" / "ant" / "a.png")
    with pytest.raises(ValueError, match="has 1 folders of classes; allowed: two or more"):
        load_folder(tmp_path)
