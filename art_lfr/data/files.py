"""A user's own files: .npz archives and folders of images."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np

from art_lfr.core.arguments import Array, check_flag, check_seed
from art_lfr.core.imports import require
from art_lfr.data.image_data import (
    PARTS,
    ImageData,
    as_images,
    as_labels,
    assemble,
    choose,
    scale_bytes,
)
from art_lfr.errors import UsageError
from art_lfr.storage.files import read_bytes

# The extra of this package that installs Pillow and torchvision.
EXTRA = "vision"
# Bits of a channel that fit a byte; others would be cut off by a conversion.
GREY_MODES = ("1", "L")
COLOUR_MODES = ("RGB", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB")
# The arrays of a part, by its name.
PLAIN = ("x_{}", "y_{}")
JPEG = ("{}_jpeg", "{}_offsets", "{}_labels")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
# What Pillow may take a file for, whatever its ending: for PostScript it would start Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
# An archive that unpacks to more than this, and to so many times its own size, is no data.
BOMB_BYTES, BOMB_RATIO = 2**28, 200


def decode(files: Iterable[tuple[str, Path | bytes]], size: tuple[int, int] | None = None) -> Array:
    """Images as float32 in [0, 1], shape (N, C, H, W), from pairs of a name and a path or bytes.

    C is 1 where every image is grey, else 3; transparency is dropped. `size` is the height and
    width to resize to (bilinear); without it all must have one size. The pixels of a JPEG may
    differ by 1/255 between versions of the decoder.

    Raises ValueError, with the file's name, for what Pillow cannot read, for more than 8 bits a
    channel and for unequal sizes; ImportError where Pillow is missing.
    """
    images: list[Array] = []
    first = ""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Corrupt EXIF")  # which is not used
        for name, file in files:
            pixels = _pixels(name, file, size)
            first = first or name
            if images and pixels.shape[:2] != images[0].shape[:2]:
                raise UsageError(
                    f"{name} has {_sides(pixels)} pixels and {first} has {_sides(images[0])}; "
                    "allowed: images of one size, or load_folder(..., size=...), which resizes them"
                )
            images.append(pixels)
    channels = max(image.shape[2] for image in images)
    stacked = np.empty((len(images), channels, *images[0].shape[:2]), dtype=np.float32)
    for row, image in zip(stacked, images, strict=True):
        row[:] = np.moveaxis(image, 2, 0)  # a grey image fills all channels
    scale_bytes("the images", stacked)
    return stacked


def _pixels(name: str, file: Path | bytes, size: tuple[int, int] | None) -> Array:
    """One image as uint8, shape (H, W, C)."""
    pillow = require("PIL.Image", EXTRA)
    content = file if isinstance(file, bytes) else read_bytes(file, "image")
    try:
        with pillow.open(io.BytesIO(content), formats=FORMATS) as image:
            mode = image.mode
            if mode in (*GREY_MODES, *COLOUR_MODES):
                image = image.convert("L" if mode in GREY_MODES else "RGB")
                if size is not None:
                    image = image.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
                pixels: Array = np.asarray(image)
                return pixels.reshape(*pixels.shape[:2], -1)
    except Exception as error:  # the readers of damaged files raise all kinds
        raise UsageError(
            f"{name} cannot be read as an image: {_line(error)}; allowed: {', '.join(FORMATS)}"
        ) from error
    raise UsageError(
        f"{name} has Pillow's mode {mode!r}; allowed: images of 8 bits a channel, grey or colour"
    )


def _sides(pixels: Array) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]}"


def load_npz(
    path: str | Path,
    *,
    training: bool = True,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> ImageData:
    """A user's data from a .npz file: `x_train`, `y_train`, `x_test`, `y_test` and the like.

    Also read: `x_validation`, `y_validation`. With `training` False any of the three parts will do,
    as for an evaluation. Images of type uint8 are scaled by 1/255, others are taken as they are;
    (N, H, W) gets a channel axis, (N, H, W, C) becomes (N, C, H, W). Values outside [0, 1] are for
    `check_model` and the training to complain about.

    A file may instead hold `train_jpeg`, `train_offsets` and `train_labels` (and `validation_...`,
    `test_...`): image i is the JPEG file in the bytes offsets[i]:offsets[i + 1] of the uint8 array.
    Only the images that are used are decoded, by Pillow.

    `train`, `validation` and `test` limit the parts, as in `ImageData.take`.

    Raises FileNotFoundError where there is no such file, ValueError for anything in it that is
    not as described, ImportError for JPEGs without Pillow. Pickled objects are refused.
    """
    check_flag("training", training)
    path = Path(path).expanduser()
    known = {pattern.format(part) for part in PARTS for pattern in (*PLAIN, *JPEG)}
    names, arrays = _read_arrays(path, known)
    needed = ["train"] if training else list(PARTS)
    plain, packed = (sorted(names & {f.format(p) for p in PARTS}) for f in (PLAIN[0], JPEG[0]))
    if plain and packed:
        raise UsageError(
            f"data file {str(path)!r} has {plain[0]} and {packed[0]}; allowed: images of one kind, "
            "arrays or JPEGs"
        )
    patterns = JPEG if packed else PLAIN
    missing = [{pattern.format(part) for pattern in patterns} - names for part in needed]
    if all(missing):
        raise UsageError(
            f"data file {str(path)!r} has the arrays {_listed(names)}; "
            f"missing: {' or '.join(', '.join(sorted(absent)) for absent in missing)}"
        )
    complete = _complete_parts(path, arrays, patterns)
    if patterns is JPEG:
        limits = {"train": train, "validation": validation, "test": test}
        return _from_jpeg(path.stem, arrays, complete, limits)
    parts = {}
    for part in complete:
        x = as_images(f"x_{part}", arrays[f"x_{part}"])
        parts[part] = x, as_labels(f"y_{part}", arrays[f"y_{part}"], len(x))
    if "train" in parts:
        _warn_of_no_first_label(parts["train"][1])
    return assemble(path.stem, parts).take(train=train, validation=validation, test=test)


def parts_of(path: str | Path) -> list[str]:
    """The parts of which a .npz file has images, in the order train, validation, test."""
    with zipfile.ZipFile(Path(path).expanduser()) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    return [p for p in PARTS if {PLAIN[0].format(p), JPEG[0].format(p)} & names]


def _warn_of_no_first_label(labels: Array) -> None:
    """Warn where labels may have been counted from 1: a network would get an output too many."""
    if (first := int(labels.min())) > 0:
        warnings.warn(
            f"no training image has label 0, the labels are {first} to {labels.max()}; labels "
            "count from 0",
            UserWarning,
            stacklevel=3,
        )


def _read_arrays(path: Path, known: set[str]) -> tuple[set[str], dict[str, Array]]:
    """The names of all arrays of a .npz file, and those of its arrays that are known."""
    if not path.is_file():  # a pipe would be waited for
        problem = "is no file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"data file {str(path)!r} {problem}")
    try:
        with zipfile.ZipFile(path) as archive:
            listed = [name.removesuffix(".npy") for name in archive.namelist()]
            names = set(listed)
            wanted = sorted(known & names)
            if twice := [name for name in wanted if listed.count(name) > 1]:
                raise UsageError(f"{twice[0]} is there twice")
            infos = [archive.getinfo(f"{name}.npy") for name in wanted]
            size, packed = (
                sum(getattr(info, key) for info in infos) for key in ("file_size", "compress_size")
            )
            if (size > BOMB_BYTES and size > BOMB_RATIO * max(1, packed)) or size > memory_bytes():
                raise UsageError(f"it unpacks from {packed:.3g} to {size:.3g} bytes")
            arrays = {}
            for name, info in zip(wanted, infos, strict=True):
                with archive.open(info) as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
                    if file.read(1):
                        raise UsageError(f"{name} is longer than its header says")
    except Exception as error:  # NumPy, zipfile and zlib raise all kinds for damaged files
        raise UsageError(
            f"data file {str(path)!r} cannot be read as .npz without pickled objects: "
            f"{_line(error)}"
        ) from error
    return names, arrays


def _listed(names: set[str]) -> str:
    """The first names of an archive, without what could trick a terminal."""
    shown = [ascii(name)[1:-1][:60] for name in sorted(names)]
    return ", ".join(shown[:8] + ["..."] * (len(shown) > 8)) or "none"


def memory_bytes() -> float:
    """The memory of this machine; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # Windows has no such call
        return math.inf


def _line(error: Exception) -> str:
    """The first line of an error, or its name where it says nothing; without addresses."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"\s*<[\w.]+ object at 0x[0-9a-fA-F]+>", "", line).rstrip(": ")[:200]


def _complete_parts(path: Path, arrays: dict[str, Array], patterns: Sequence[str]) -> list[str]:
    """The parts that the file has; ValueError where some of a part's arrays are missing."""
    complete = []
    for part in PARTS:
        wanted = [pattern.format(part) for pattern in patterns]
        present = [name for name in wanted if name in arrays]
        if present and present != wanted:
            raise UsageError(
                f"data file {str(path)!r} has only {'one' if len(present) == 1 else 'two'} of "
                f"{', '.join(wanted[:-1])} and {wanted[-1]}"
            )
        complete += [part] if present else []
    return complete


def _from_jpeg(
    name: str, arrays: dict[str, Array], complete: list[str], limits: dict[str, int | None]
) -> ImageData:
    labels = {part: _jpeg_labels(part, arrays) for part in complete}
    if "train" in labels:
        _warn_of_no_first_label(labels["train"])
    sizes = {part: len(labels.get(part, ())) for part in PARTS}
    parts = {}
    for part, (source, images) in choose(sizes, **limits).items():
        indices = range(images.start, images.stop)
        if not indices:
            continue
        data, offsets = arrays[f"{source}_jpeg"], arrays[f"{source}_offsets"]
        x = decode(
            (f"image {i} of {source}_jpeg", data[offsets[i] : offsets[i + 1]].tobytes())
            for i in indices
        )
        parts[part] = x, labels[source][images]
    return assemble(name, parts)


def _jpeg_labels(part: str, arrays: dict[str, Array]) -> Array:
    """The labels of a part whose offsets lie in its bytes; ValueError for others."""
    data, offsets = arrays[f"{part}_jpeg"], arrays[f"{part}_offsets"]
    if data.dtype != np.uint8 or data.ndim != 1:
        raise UsageError(
            f"{part}_jpeg has shape {data.shape} and dtype {data.dtype}; allowed: bytes (uint8) of "
            "shape (N,)"
        )
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 2:
        raise UsageError(
            f"{part}_offsets has shape {offsets.shape} and dtype {offsets.dtype}; allowed: "
            "integers of shape (images + 1,), at least one image"
        )
    if offsets[0] < 0 or offsets[-1] > len(data) or (offsets[1:] <= offsets[:-1]).any():
        raise UsageError(
            f"{part}_offsets has values from {offsets.min()} to {offsets.max()}; allowed: "
            f"ascending ones in the {len(data)} bytes of {part}_jpeg"
        )
    return as_labels(f"{part}_labels", arrays[f"{part}_labels"], len(offsets) - 1)


def load_folder(
    path: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    seed: int = 0,
) -> ImageData:
    """A user's images in `train/<class>/`, and where wanted `validation/...` and `test/...`.

    The classes are the folders of `train`, sorted by name as text ("10" before "2"); their names
    are in `ImageData.classes`. All images must have one size, or are resized to `size`: the height
    and width in pixels, or one number for both. They are grey (C = 1) where every one is, else RGB.
    Each part is in an order that `seed` shuffles, as files lie by class. Files other than images
    (by their ending) and hidden ones are passed over. `train`, `validation` and `test` limit the
    parts, as in `ImageData.take`; only images that are used are decoded.

    Raises FileNotFoundError where the folder or its `train` is missing, ValueError for anything in
    it that is not as described, ImportError where Pillow is missing.
    """
    path = Path(path).expanduser()
    check_seed("seed", seed)
    sides = _height_and_width(size)
    if not (path / "train").is_dir():
        missing = "has no folder train" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"data folder {str(path)!r} {missing}; allowed: a folder with train/<class>/ and images"
        )
    classes = tuple(folder.name for folder in _class_folders(path / "train"))
    if len(classes) < 2:
        raise UsageError(
            f"data folder {str(path / 'train')!r} has {len(classes)} folders of classes; allowed: "
            "two or more"
        )
    files = {part: _shuffled(path / part, classes, seed) for part in PARTS}
    sizes = {part: len(pairs) for part, pairs in files.items()}
    parts = {}
    chosen = choose(sizes, train=train, validation=validation, test=test)
    for part, (source, images) in chosen.items():
        pairs = files[source][images]
        if pairs:
            x = decode(((str(file), file) for file, _ in pairs), sides)
            parts[part] = x, np.array([label for _, label in pairs], dtype=np.int64)
    return assemble(path.resolve().name, parts, classes)


def _height_and_width(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or any(
        isinstance(side, bool) or not isinstance(side, Integral) or side < 1 for side in sides
    ):
        raise UsageError(
            f"size is {size!r}; allowed: an integer >= 1, a pair of them (height, width), or None"
        )
    return int(sides[0]), int(sides[1])


def _class_folders(part: Path) -> list[Path]:
    folders = (item for item in part.iterdir() if item.is_dir() and item.name[0] != ".")
    return sorted(folders, key=lambda folder: folder.name)


def _shuffled(part: Path, classes: tuple[str, ...], seed: int) -> list[tuple[Path, int]]:
    """Images of a part and their labels, in the order of the seed; none where it is missing."""
    if not part.is_dir():
        return []
    folders = _class_folders(part)
    if not folders:
        raise UsageError(
            f"data folder {str(part)!r} has no folders of classes; allowed: {', '.join(classes)}"
        )
    pairs = []
    for folder in folders:
        if folder.name not in classes:
            raise UsageError(
                f"data folder {str(part)!r} has the class {folder.name!r}, which train does not "
                f"have; allowed: {', '.join(classes)}"
            )
        images = sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in ENDINGS and file.name[0] != "."
        )
        if not images:
            raise UsageError(
                f"data folder {str(folder)!r} has no images; allowed: files ending in "
                f"{', '.join(ENDINGS)}"
            )
        pairs += [(file, classes.index(folder.name)) for file in images]
    return [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))]
