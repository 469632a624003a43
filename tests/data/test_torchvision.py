"""Data sets through torchvision: a stand-in for the library, and the library on tiny files."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from art_lfr.data import default_root, load, load_torchvision
from art_lfr.data.named import SOURCES

CLASS_OF = {name: source.dataset for name, source in SOURCES.items()}
rng = np.random.default_rng(0)


class Stand:
    """What a class of torchvision.datasets gives, and how it was called."""

    shape: tuple[int, ...] = (28, 28)
    failure: Exception | None = None

    def __init__(self, root: str, download: bool = False, **which: Any) -> None:
        print("Files already downloaded and verified")  # as older releases do
        if self.failure is not None:
            raise self.failure
        self.calls.append((root, download, which))
        train = which.get("train", which.get("split") == "train")
        count = 12 if train else 5
        self.data = np.full((count, *self.shape), 255 if train else 51, dtype=np.uint8)
        labels = [i % 10 for i in range(count)]
        if "split" in which:
            self.labels = np.array(labels)
        else:
            self.targets = labels

    calls: list[Any]


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torchvision.datasets replaced; whether torchvision is installed does not matter."""
    module: Any = ModuleType("torchvision.datasets")
    shapes = {"SVHN": (3, 32, 32), "CIFAR10": (32, 32, 3), "CIFAR100": (32, 32, 3)}
    for name in CLASS_OF.values():
        fields = {"shape": shapes.get(name, (28, 28)), "calls": []}
        setattr(module, name, type(name, (Stand,), fields))
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    return module


@pytest.mark.parametrize("name", SOURCES)
def test_every_set(name: str, datasets: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data = load(name, root="some/folder", train=6, validation=2, test=3)
    shape = (1, 28, 28) if "mnist" in name else (3, 32, 32)
    assert data.name == name
    assert [a.shape for a in (data.x_train, data.x_validation, data.x_test)] == [
        (6, *shape),
        (2, *shape),
        (3, *shape),
    ]
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int64)
    assert (data.x_train.min(), data.x_test.max()) == (1.0, pytest.approx(0.2))
    np.testing.assert_array_equal(data.y_validation, [0, 1])
    roots, downloads, which = zip(*getattr(datasets, CLASS_OF[name]).calls, strict=True)
    assert set(roots) == {str(Path("some/folder"))}
    assert set(downloads) == {True}
    expected = [{"split": "train"}, {"split": "test"}]
    assert list(which) == (expected if name == "svhn" else [{"train": True}, {"train": False}])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", SOURCES)
def test_what_to_do_where_nothing_can_be_downloaded(
    name: str, datasets: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(getattr(datasets, CLASS_OF[name]), "failure", URLError("no route"))
    with pytest.raises(FileNotFoundError) as raised:
        load_torchvision(name, tmp_path)
    words = str(raised.value)
    assert words.startswith(f"{name} could be neither read from {str(tmp_path)!r} nor downloaded")
    # The way out comes before what went wrong.
    assert words.index(f"--data {name}.npz") < words.index("no route")
    assert all(file in words for file in SOURCES[name].files)
    assert repr(str(tmp_path / SOURCES[name].folder)) in words
    assert "\n" not in words
    monkeypatch.setattr(getattr(datasets, CLASS_OF[name]), "failure", AssertionError())
    with pytest.raises(
        FileNotFoundError, match=r"download is False: give a .*npz.*AssertionError$"
    ):
        load_torchvision(name, tmp_path, download=False)


def test_the_folder(datasets: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ART_LFR_DATA", raising=False)
    assert default_root() == Path.home() / ".cache" / "art-lfr"
    monkeypatch.setenv("ART_LFR_DATA", str(tmp_path))
    load_torchvision("mnist")
    assert datasets.MNIST.calls[0][0] == str(tmp_path)


def test_a_wrong_name() -> None:
    with pytest.raises(ValueError, match=r"name is 'cifar-10'; .* did you mean 'cifar10'"):
        load_torchvision("cifar-10")


def test_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.datasets", raising=False)
    with pytest.raises(ImportError, match="torchvision is not installed; install it with: pip"):
        load_torchvision("mnist")


def test_torchvision_of_another_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match=r"nms does not exist.* together, from one index"):
        load_torchvision("mnist")


# torchvision itself, on files as the sets' authors write them


def library() -> Any:
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    return torchvision.datasets


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files(name: str, tmp_path: Path) -> None:
    library()
    raw = tmp_path / SOURCES[name].folder
    raw.mkdir(parents=True)
    images = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)
    labels = np.arange(7, dtype=np.uint8)
    for part, count in (("train", 7), ("t10k", 3)):
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images[:count].tobytes())
        header = struct.pack(">II", 0x801, count)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels[:count].tobytes())
    data = load(name, root=tmp_path, download=False, validation=2)
    np.testing.assert_array_equal(data.x_train[:, 0], images[:5].astype(np.float32) / 255)
    np.testing.assert_array_equal(data.y_validation, [5, 6])
    np.testing.assert_array_equal(data.y_test, [0, 1, 2])
    assert len(data.classes) == 10
    (raw / "train-images-idx3-ubyte").write_bytes(b"torn")
    with pytest.raises(FileNotFoundError, match="in place of torn files"):
        load(name, root=tmp_path, download=False)


def test_cifar_batches_and_their_md5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar = library().CIFAR10
    folder = tmp_path / cifar.base_folder
    folder.mkdir()
    images = rng.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    contents = {
        "data_batch_1": {"data": images.reshape(6, -1), "labels": [5, 4, 3, 2, 1, 0]},
        "test_batch": {"data": images[:2].reshape(2, -1), "labels": [7, 8]},
        "batches.meta": {"label_names": ["airplane", "automobile"]},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    sums = {name: md5(folder / name) for name in contents}
    monkeypatch.setattr(cifar, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": sums["batches.meta"]})
    data = load("cifar10", root=tmp_path)
    np.testing.assert_array_equal(data.x_train, images.astype(np.float32) / 255)
    np.testing.assert_array_equal(data.y_train, [5, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(data.y_test, [7, 8])
    assert data.classes == ("airplane", "automobile")
    contents["data_batch_1"]["labels"] = [0] * 6
    (folder / "data_batch_1").write_bytes(pickle.dumps(contents["data_batch_1"]))
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python\.tar\.gz.*corrupted"):
        load("cifar10", root=tmp_path, download=False)


def test_svhn_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    svhn = library().SVHN
    images = rng.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    splits = {}
    for part in ("train", "test"):
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": images, "y": np.array([[10], [1], [2], [9]], dtype=np.uint8)})
        splits[part] = ["http://none.invalid", file.name, md5(file)]
    monkeypatch.setattr(svhn, "split_list", splits)
    data = load("svhn", root=tmp_path)
    expected = images.transpose(3, 2, 0, 1).astype(np.float32) / 255
    np.testing.assert_array_equal(data.x_train, expected)
    np.testing.assert_array_equal(data.y_test, [0, 1, 2, 9])
