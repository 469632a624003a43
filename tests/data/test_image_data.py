"""Image data: parts and slices, checksums, .npz files with JPEGs, folders of images, names."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from art_lfr.cli.inputs import load_data
from art_lfr.data import (
    NAMES,
    ImageData,
    check_data_name,
    digits,
    load,
    load_folder,
    load_npz,
    with_validation,
)


def labelled(train: int = 20, validation: int = 0, test: int = 6) -> ImageData:
    """Images of which each holds its own number, which is its label too."""

    def part(start: int, count: int) -> tuple[Any, Any]:
        y = np.arange(start, start + count)
        x = np.broadcast_to(y[:, None, None, None] / 100, (count, 1, 3, 3))
        return x.astype(np.float32), y.astype(np.int64)

    parts = [part(0, train), part(50, validation), part(80, test)]
    return ImageData("numbers", *[array for pair in parts for array in pair])


def image_module() -> Any:
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


# Parts


def test_the_last_training_images_are_held_out() -> None:
    data = with_validation(labelled(), 5)
    np.testing.assert_array_equal(data.y_train, range(15))
    np.testing.assert_array_equal(data.y_validation, range(15, 20))
    np.testing.assert_array_equal(
        data.x_validation[:, 0, 0, 0], np.float32(data.y_validation / 100)
    )
    assert len(data.y_test) == 6
    with pytest.raises(ValueError, match="count is 20; allowed: at most 19"):
        with_validation(labelled(), 20)
    with pytest.raises(ValueError, match="count is 0; allowed: an integer >= 1"):
        with_validation(labelled(), 0)
    with pytest.raises(ValueError, match="numbers, which has 4 validation images"):
        with_validation(labelled(validation=4), 2)


def test_the_first_images_of_each_part() -> None:
    data = labelled().take(train=3, validation=4, test=2)
    np.testing.assert_array_equal(data.y_train, range(3))
    np.testing.assert_array_equal(data.y_validation, range(16, 20))
    np.testing.assert_array_equal(data.y_test, [80, 81])
    own = labelled(validation=5).take(validation=2, test=0)
    np.testing.assert_array_equal(own.y_validation, [50, 51])
    assert (len(own.y_train), len(own.y_test)) == (20, 0)
    whole = labelled(validation=5)
    assert whole.take().digest == whole.digest


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"train": 21}, "train is 21; allowed: at most 20"),
        ({"train": 16, "validation": 5}, "train is 16; allowed: at most 15"),
        ({"validation": 20}, "validation is 20; allowed: at most 19"),
        ({"test": 7}, "test is 7; allowed: at most 6"),
        ({"train": 0}, "train is 0; allowed: an integer >= 1"),
        ({"test": -1}, "test is -1; allowed: an integer >= 0"),
    ],
)
def test_more_images_than_there_are(limits: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        labelled().take(**limits)


def test_the_digest_is_that_of_the_arrays() -> None:
    data = labelled()
    assert data.digest == labelled().digest
    assert len(data.digest) == 64
    assert dataclasses.replace(data, name="other").digest == data.digest
    moved = data.x_test.copy()
    moved[0, 0, 0, 0] += 1e-6
    others = [
        dataclasses.replace(data, x_test=moved),
        dataclasses.replace(data, y_test=data.y_test + 1),
        dataclasses.replace(data, x_test=data.x_test.reshape(6, 1, 1, 9)),
        with_validation(data, 1),
    ]
    assert len({data.digest, *[other.digest for other in others]}) == 5
    swapped = dataclasses.replace(data, x_train=data.x_train.astype(">f4"))
    assert swapped.digest == data.digest


# .npz files


def test_limits_of_a_plain_file(tmp_path: Path) -> None:
    x = np.arange(10 * 9, dtype=np.uint8).reshape(10, 3, 3)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=np.arange(10), notes=np.array([{}]))
    data = load_npz(tmp_path / "d.npz", train=4, validation=2)
    np.testing.assert_array_equal(data.y_train, range(4))
    np.testing.assert_array_equal(data.y_validation, [8, 9])
    np.testing.assert_array_equal(data.x_validation[:, 0], x[8:].astype(np.float32) / 255)


def jpeg_arrays(part: str, files: list[bytes], labels: list[int]) -> dict[str, Any]:
    return {
        f"{part}_jpeg": np.frombuffer(b"".join(files), dtype=np.uint8),
        f"{part}_offsets": np.cumsum([0, *map(len, files)]),
        f"{part}_labels": np.array(labels, dtype=np.uint8),
    }


@pytest.fixture
def jpegs() -> dict[str, Any]:
    """Ten training and three test JPEGs of one colour each; every colour tells the number."""
    image = image_module()

    def file(number: int) -> bytes:
        written = io.BytesIO()
        image.new("RGB", (8, 16), (number * 20, 128, 255 - number * 20)).save(written, "JPEG")
        return written.getvalue()

    train = jpeg_arrays("train", [file(i) for i in range(10)], list(range(10)))
    return train | jpeg_arrays("test", [file(i) for i in range(3)], [0, 1, 2])


def test_jpegs_in_a_file(tmp_path: Path, jpegs: dict[str, Any]) -> None:
    np.savez(tmp_path / "d.npz", **jpegs)
    data = load_npz(tmp_path / "d.npz")
    assert data.x_train.shape == (10, 3, 16, 8)
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(
        data.x_train[:, 0].mean((1, 2)), np.arange(10) * 20 / 255, atol=3 / 255
    )
    np.testing.assert_array_equal(data.y_test, [0, 1, 2])
    some = load_npz(tmp_path / "d.npz", train=2, validation=3, test=0)
    assert some.digest == data.take(train=2, validation=3, test=0).digest
    np.testing.assert_array_equal(some.y_validation, [7, 8, 9])


def test_only_what_is_used_is_decoded(tmp_path: Path, jpegs: dict[str, Any]) -> None:
    start, stop = jpegs["train_offsets"][4:6]
    jpegs["train_jpeg"] = jpegs["train_jpeg"].copy()
    jpegs["train_jpeg"][start:stop] = 0
    np.savez(tmp_path / "d.npz", **jpegs)
    assert len(load_npz(tmp_path / "d.npz", train=4, validation=2).y_train) == 4
    with pytest.raises(ValueError, match="image 4 of train_jpeg cannot be read as an image"):
        load_npz(tmp_path / "d.npz", train=5)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("train_labels", None, "missing: train_labels"),
        ("test_labels", None, "only two of test_jpeg, test_offsets and test_labels"),
        ("train_labels", np.arange(9), r"train_labels has shape \(9,\)"),
        ("train_jpeg", np.zeros(9), "train_jpeg has shape .* and dtype float64"),
        ("train_offsets", np.zeros(11), "train_offsets has shape .* and dtype float64"),
        ("train_offsets", np.arange(11)[::-1], "allowed: ascending ones"),
        ("train_offsets", np.arange(11) * 10**6, "from 0 to 10000000; allowed: ascending"),
    ],
)
def test_bad_jpeg_arrays(
    tmp_path: Path, jpegs: dict[str, Any], name: str, value: Any, words: str
) -> None:
    del jpegs[name]
    np.savez(tmp_path / "d.npz", **jpegs, **({} if value is None else {name: value}))
    with pytest.raises(ValueError, match=words):
        load_npz(tmp_path / "d.npz")


def test_jpegs_without_pillow(
    tmp_path: Path, jpegs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "d.npz", **jpegs)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(ImportError, match="PIL is not installed; install it with: pip install"):
        load_npz(tmp_path / "d.npz")


# Folders


def save(path: Path, mode: str = "L", colour: Any = 0, size: tuple[int, int] = (4, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image_module().new(mode, size, colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of grey images whose brightness tells class and number."""
    for label, name in enumerate(["ant", "bee", "cat"]):
        for number in range(5):
            save(tmp_path / "pets" / "train" / name / f"{number}.png", colour=50 * label + number)
        save(tmp_path / "pets" / "test" / name / "a.PNG", colour=50 * label + 9)
        (tmp_path / "pets" / "train" / name / "notes.txt").write_text("no image")
        save(tmp_path / "pets" / "train" / name / ".hidden.png", colour=255)
    return tmp_path / "pets"


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
    save(folder / "validation" / "bee" / "a.jpg", colour=77)
    data = load_folder(folder)
    np.testing.assert_array_equal(data.y_validation, [1])
    assert len(data.y_train) == 15


def test_colour_and_grey_images_together(folder: Path) -> None:
    save(folder / "train" / "ant" / "colour.png", "RGB", (255, 0, 51))
    for name in ("ant", "bee", "cat"):
        save(folder / "test" / name / "a.PNG", "RGBA", (255, 0, 51, 0))
    data = load_folder(folder)
    assert data.x_train.shape == (16, 3, 6, 4)
    grey = data.x_train[(data.x_train[:, 0] == data.x_train[:, 1]).all((1, 2))]
    assert len(grey) == 15
    assert data.x_test[0, :, 0, 0] == pytest.approx([1.0, 0.0, 0.2])


def test_sizes(folder: Path) -> None:
    save(folder / "train" / "ant" / "z.png", size=(9, 9))
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
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        load_folder(folder)
    save(folder / "validation" / "cat" / "a.png", "I;16")
    with pytest.raises(ValueError, match=r"a\.png has Pillow's mode 'I;16'; allowed: images of 8"):
        load_folder(folder)


def test_one_class_is_none(tmp_path: Path) -> None:
    save(tmp_path / "train" / "ant" / "a.png")
    with pytest.raises(ValueError, match="has 1 folders of classes; allowed: two or more"):
        load_folder(tmp_path)


# Names


def test_load_by_name_and_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load("digits").digest == digits().digest
    assert len(load("digits", train=10, validation=5, test=3).y_validation) == 5
    assert load(folder, test=1).digest == load_folder(folder, test=1).digest
    np.savez(folder / "d.npz", x_train=np.zeros((4, 3, 3)), y_train=[0, 1, 2, 3])
    assert load(folder / "d.npz", validation=1).y_validation.tolist() == [3]
    # The command line's option.
    monkeypatch.chdir(folder.parent)
    assert load_data("pets").digest == load_folder(folder).digest
    assert load_data("pets/d.npz").y_train.tolist() == [0, 1, 2, 3]


def test_unknown_names(tmp_path: Path) -> None:
    for bad in ("", "imagenet", str(tmp_path / "absent"), Path("mnst")):
        with pytest.raises(
            ValueError, match=r"name is .*; allowed: digits, mnist, .*npz file, or a"
        ):
            load(bad)
    with pytest.raises(ValueError, match="--data is 'imagenet'; allowed: digits, mnist, fashion"):
        load_data("imagenet")
    with pytest.raises(FileNotFoundError, match=r"'absent\.npz' does not exist"):
        load_data("absent.npz")
    for name in NAMES:
        check_data_name("name", name)
