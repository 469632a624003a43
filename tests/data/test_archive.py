"""Images in .npz files, as arrays and as JPEGs."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lfr_testing import pillow_image

from art_lfr.data import load_npz


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 9, 8), (1, 9, 8)), ((5, 3, 9, 8), (3, 9, 8)), ((5, 9, 8, 3), (3, 9, 8))],
)
def test_images_of_a_file(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    x = np.arange(np.prod(shape)).reshape(shape) % 256
    np.savez(tmp_path / "d.npz", x_train=x.astype(np.uint8), y_train=np.eye(5))
    data = load_npz(tmp_path / "d.npz")
    assert data.x_train.shape == (5, *expected)
    assert data.x_train.dtype == np.float32
    assert data.x_train.max() <= 1.0
    first = x[0, 0, 1, 2] if shape[-1] == 3 else x[0].reshape(-1, 9, 8)[0, 0, 1]
    channel = 2 if shape[-1] == 3 else 0
    assert data.x_train[0, channel, 0, 1] == pytest.approx(first / 255)
    np.testing.assert_array_equal(data.y_train, range(5))
    assert len(data.x_test) == len(data.y_test) == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros((2, 3, 3))}, "missing: y_train"),
        ({"x_train": np.zeros((2, 3)), "y_train": [0, 1]}, r"x_train has shape \(2, 3\)"),
        ({"x_train": np.zeros((2, 3, 3), int), "y_train": [0, 1]}, "dtype int64"),
        ({"x_train": np.zeros((2, 3, 3)), "y_train": [0]}, r"y_train has shape \(1,\)"),
        (
            {"x_train": np.zeros((2, 3, 3)), "y_train": [0, -1]},
            "from -1 to 0; allowed: 0 and above",
        ),
        (
            {"x_train": np.zeros((2, 3, 3)), "y_train": [0, 0.5]},
            "has the label 0.5; allowed: integer",
        ),
        ({"x_train": np.full((2, 3, 3), np.nan), "y_train": [0, 1]}, "NaN"),
        (
            {"x_train": np.zeros((2, 3, 3)), "y_train": [0, 1], "x_test": np.zeros((2, 3, 3))},
            "only one of x_test and y_test",
        ),
        (
            {
                "x_train": np.zeros((2, 3, 3)),
                "y_train": [0, 1],
                "x_test": np.zeros((2, 4, 3)),
                "y_test": [0, 1],
            },
            "x_test has images of shape",
        ),
        ({"x_train": np.array([{}, {}], dtype=object), "y_train": [0, 1]}, "pickled"),
        ({"x_train": np.ones((2, 3, 3), np.uint8), "y_train": [0, 1]}, "bytes of 0 and 1 only"),
        (
            {"x_train": np.zeros((2, 3, 3)), "y_train": [0, 10**9]},
            "label 1000000000; allowed: below",
        ),
    ],
)
def test_bad_files(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_npz(tmp_path / "d.npz")


def test_an_error_shows_no_address(tmp_path: Path) -> None:
    header = b"{'descr': f(), 'fortran_order': False, 'shape': (1,)}\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("x_train", "y_train"):
            size = len(header).to_bytes(2, "little")
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + size + header)
    with pytest.raises(ValueError, match="malformed node") as caught:
        load_npz(tmp_path / "a.npz")
    assert "0x" not in str(caught.value)


def test_limits_of_a_plain_file(tmp_path: Path) -> None:
    x = np.arange(10 * 9, dtype=np.uint8).reshape(10, 3, 3)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=np.arange(10), notes=np.array([{}]))
    data = load_npz(tmp_path / "d.npz", train=4, validation=2)
    np.testing.assert_array_equal(data.y_train, range(4))
    np.testing.assert_array_equal(data.y_validation, [8, 9])
    np.testing.assert_array_equal(data.x_validation[:, 0], x[8:].astype(np.float32) / 255)


def test_labels_that_may_count_from_one_are_warned_of(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    x = np.zeros((3, 4, 4))
    np.savez(tmp_path / "a.npz", x_train=x, y_train=[0, 1, 2], x_test=x[1:], y_test=[1, 2])
    load_npz(tmp_path / "a.npz")
    assert not recwarn
    np.savez(tmp_path / "a.npz", x_train=x, y_train=[1, 2, 3])
    with pytest.warns(UserWarning, match=r"no training image has label 0, the labels are 1 to 3; "):
        load_npz(tmp_path / "a.npz")


def jpeg_arrays(part: str, files: list[bytes], labels: list[int]) -> dict[str, Any]:
    return {
        f"{part}_jpeg": np.frombuffer(b"".join(files), dtype=np.uint8),
        f"{part}_offsets": np.cumsum([0, *map(len, files)]),
        f"{part}_labels": np.array(labels, dtype=np.uint8),
    }


@pytest.fixture
def jpegs() -> dict[str, Any]:
    """Ten training and three test JPEGs of one colour each; every colour tells the number."""
    image = pillow_image()

    def file(number: int) -> bytes:
        written = io.BytesIO()
        image.new("RGB", (8, 16), (number * 20, 128, 255 - number * 20)).save(written, "JPEG")
        return written.getvalue()

    train = jpeg_arrays("train", [file(i) for i in range(10)], list(range(10)))
    return train | jpeg_arrays("test", [file(i) for i in range(3)], [0, 1, 2])


def test_a_part_that_is_judged_is_enough(tmp_path: Path, jpegs: dict[str, Any]) -> None:
    x = np.random.default_rng(0).random((4, 1, 5, 5)).astype(np.float32)
    np.savez(tmp_path / "plain.npz", x_test=x, y_test=[1, 2, 0, 1])
    data = load_npz(tmp_path / "plain.npz", training=False, test=3)
    np.testing.assert_array_equal(data.x_test, x[:3])
    assert data.y_test.tolist() == [1, 2, 0]
    assert data.x_train.shape == data.x_validation.shape == (0, 1, 5, 5)
    with pytest.raises(ValueError, match="missing: x_train, y_train"):
        load_npz(tmp_path / "plain.npz")
    np.savez(tmp_path / "jpeg.npz", **{k: v for k, v in jpegs.items() if k.startswith("test")})
    assert load_npz(tmp_path / "jpeg.npz", training=False).y_test.tolist() == [0, 1, 2]
    np.savez(tmp_path / "other.npz", x=x)
    with pytest.raises(ValueError, match="missing: x_train, y_train or "):
        load_npz(tmp_path / "other.npz", training=False)


def test_images_of_two_kinds_and_limits_that_leave_none_are_refused(
    tmp_path: Path, jpegs: dict[str, Any]
) -> None:
    x = np.zeros((4, 1, 16, 8), dtype=np.float32)
    np.savez(tmp_path / "both.npz", **jpegs, x_test=x, y_test=[0, 1, 2, 3])
    for training in (True, False):
        with pytest.raises(ValueError, match="has x_test and test_jpeg; allowed: images of one"):
            load_npz(tmp_path / "both.npz", training=training)
    np.savez(tmp_path / "test.npz", **{k: v for k, v in jpegs.items() if k.startswith("test")})
    with pytest.raises(ValueError, match="test gives no image"):
        load_npz(tmp_path / "test.npz", training=False, test=0)
    with pytest.raises(ValueError, match="validation is 2, of a set without training"):
        load_npz(tmp_path / "test.npz", training=False, validation=2)


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
