"""Data by what the command line takes for --data: a name, a .npz file or a folder.

MNIST, Fashion-MNIST, SVHN and CIFAR come through torchvision, which downloads and checks them."""

from __future__ import annotations

import contextlib
import http.client
import os
import pickle
import sys
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from art_lfr.core.arguments import Array, check_choice
from art_lfr.core.imports import require
from art_lfr.data.files import EXTRA, load_folder, load_npz
from art_lfr.data.image_data import ImageData, as_images, as_labels, assemble
from art_lfr.data.recipes import find_data
from art_lfr.errors import MissingLibraryError

IDX = tuple(
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
# What torchvision raises for files that are missing, torn or cannot be fetched.
FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    AssertionError,
    EOFError,
    http.client.HTTPException,
    pickle.UnpicklingError,
    tarfile.TarError,
    zlib.error,
)


@dataclass(frozen=True)
class Source:
    """A data set in `torchvision.datasets`: its class there, its files, and where they lie."""

    dataset: str
    files: tuple[str, ...]
    folder: str
    address: str


SOURCES = {
    "mnist": Source("MNIST", IDX, "MNIST/raw", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
    "fashion-mnist": Source(
        "FashionMNIST",
        IDX,
        "FashionMNIST/raw",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    "svhn": Source(
        "SVHN", ("train_32x32.mat", "test_32x32.mat"), "", "http://ufldl.stanford.edu/housenumbers/"
    ),
    "cifar10": Source(
        "CIFAR10", ("cifar-10-python.tar.gz",), "", "https://www.cs.toronto.edu/~kriz/cifar.html"
    ),
    "cifar100": Source(
        "CIFAR100", ("cifar-100-python.tar.gz",), "", "https://www.cs.toronto.edu/~kriz/cifar.html"
    ),
}


def default_root() -> Path:
    """Where data sets are kept: the folder in ART_LFR_DATA, or else ~/.cache/art-lfr."""
    folder = os.environ.get("ART_LFR_DATA")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "art-lfr"


def load_torchvision(
    name: str,
    root: str | Path | None = None,
    *,
    download: bool = True,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> ImageData:
    """mnist, fashion-mnist, svhn, cifar10 or cifar100: (N, C, H, W) in [0, 1], its own split.

    Files are looked for in `root` (`default_root()` where None) and, if `download`, fetched into
    it where they are missing. torchvision compares what it downloads with MD5 sums of its own, and
    CIFAR and SVHN also whenever they are read; unpacked MNIST and Fashion-MNIST files that are
    there already it takes as they are. `ImageData.digest` tells what was read. None of the sets
    has a validation part; `train`, `validation` and `test` are as in `ImageData.take`.

    Raises FileNotFoundError, with the files and the folder to put them into, where a set is neither
    there nor to be had; ImportError where torchvision is missing or does not fit torch.
    """
    check_choice("name", name, SOURCES)
    source = SOURCES[name]
    folder = default_root() if root is None else Path(root).expanduser()
    make = getattr(_torchvision_datasets(), source.dataset)
    parts = {}
    try:
        for part in ("train", "test"):
            which: dict[str, Any] = (
                {"split": part} if name == "svhn" else {"train": part == "train"}
            )
            # Older releases report to stdout, which belongs to a command's results.
            with contextlib.redirect_stdout(sys.stderr):
                loaded = make(str(folder), download=download, **which)
            parts[part] = _arrays(f"{name}'s {part} part", loaded)
    except FAILURES as error:
        detail = " ".join(str(error).split())[:150] or type(error).__name__
        place = repr(str(folder))
        failed = (
            f"could be neither read from {place} nor downloaded"
            if download
            else f"could not be read from {place}, and download is False"
        )
        raise FileNotFoundError(
            f"{name} {failed}: give a .npz file (--data {name}.npz) with x_train, y_train, x_test "
            f"and y_test, or put {', '.join(source.files)} (from {source.address}) into "
            f"{str(folder / source.folder)!r}, in place of torn files. {detail}"
        ) from error
    names = tuple(str(label) for label in getattr(loaded, "classes", ()))
    return assemble(name, parts, names).take(train=train, validation=validation, test=test)


def _torchvision_datasets() -> ModuleType:
    try:
        return require("torchvision.datasets", EXTRA)
    except RuntimeError as error:
        raise MissingLibraryError(
            f"torchvision is installed but fails to import ({error}), as it does beside a torch of "
            "another build; install torch and torchvision together, from one index"
        ) from error


def _arrays(name: str, dataset: Any) -> tuple[Array, Array]:
    """All images and labels of a torchvision data set."""
    labels = dataset.labels if hasattr(dataset, "labels") else dataset.targets
    x = as_images(name, np.asarray(dataset.data))
    return x, as_labels(name, np.asarray(labels), len(x))


DIGITS_TEST = 450
DIGITS_VALIDATION = 150


def load(
    name: str | Path,
    *,
    root: str | Path | None = None,
    download: bool = True,
    training: bool = True,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> ImageData:
    """Labelled images in [0, 1] by name or path; see `digits`, `load_torchvision` and the others.

    `name` is one of `NAMES`, a path ending in .npz, or a folder with train/<class>/ and images (a
    folder that has one of the names: "./mnist"). `root` and `download` are for the sets of
    torchvision, `training` is for .npz files. `train`, `validation` and `test` say how many images
    to take, as in `ImageData.take`: the first of each part, and for validation the last training
    images where the set has none of its own.

    Raises ValueError for another name, and what the readers of each kind raise.
    """
    limits: dict[str, Any] = {"train": train, "validation": validation, "test": test}
    name = find_data("name", name)
    if name == "digits":
        return digits().take(**limits)
    if name in SOURCES:
        return load_torchvision(name, root, download=download, **limits)
    if name.endswith(".npz"):
        return load_npz(name, training=training, **limits)
    return load_folder(name, **limits)


def digits(seed: int = 0) -> ImageData:
    """scikit-learn's 1,797 handwritten digits, (N, 1, 8, 8) in [0, 1]; nothing is downloaded.

    `seed` fixes the shuffled split: 450 for test, 150 for validation, 1,197 for training.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    order = np.random.default_rng(seed).permutation(len(loaded.images))
    x = (loaded.images[order, None] / 16.0).astype(np.float32)
    y = loaded.target[order].astype(np.int64)
    reserved = DIGITS_TEST + DIGITS_VALIDATION
    parts = {
        "test": slice(DIGITS_TEST),
        "validation": slice(DIGITS_TEST, reserved),
        "train": slice(reserved, None),
    }
    return assemble("digits", {part: (x[rows], y[rows]) for part, rows in parts.items()})
