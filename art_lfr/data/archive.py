""".npz files: arrays of images, or JPEG files one after another."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from art_lfr.core.arguments import Array
from art_lfr.data.arrays import as_images, as_labels
from art_lfr.data.decoding import decode
from art_lfr.data.image_data import ImageData, assemble
from art_lfr.data.selection import PARTS, choose
from art_lfr.errors import UsageError

PLAIN = ("x", "y")
JPEG = ("jpeg", "offsets", "labels")


def load_npz(
    path: str | Path,
    *,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> ImageData:
    """A user's data from a .npz file with `x_train`, `y_train`, and where wanted others.

    Also read: `x_validation`, `y_validation`, `x_test`, `y_test`. Images of type uint8 are scaled
    by 1/255, others are taken as they are; (N, H, W) gets a channel axis, (N, H, W, C) becomes
    (N, C, H, W). Values outside [0, 1] are for `check_model` and the training to complain about.

    A file may instead hold `train_jpeg`, `train_offsets` and `train_labels` (and `validation_...`,
    `test_...`): image i is the JPEG file in the bytes offsets[i]:offsets[i + 1] of the uint8 array.
    Only the images that are used are decoded, by Pillow.

    `train`, `validation` and `test` limit the parts, as in `ImageData.take`.

    Raises FileNotFoundError where there is no such file, ValueError for anything in it that is
    not as described, ImportError for JPEGs without Pillow. Pickled objects are refused.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"data file {str(path)!r} does not exist")
    known = {f"{kind}_{part}" for part in PARTS for kind in PLAIN}
    known |= {f"{part}_{kind}" for part in PARTS for kind in JPEG}
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
            arrays = {name: archive[name] for name in sorted(known & names)}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise UsageError(
            f"data file {str(path)!r} cannot be read as .npz without pickled objects: {error}"
        ) from error
    jpeg = "train_jpeg" in names and "x_train" not in names
    required = {f"train_{kind}" for kind in JPEG} if jpeg else {f"{kind}_train" for kind in PLAIN}
    if required - names:
        raise UsageError(
            f"data file {str(path)!r} has the arrays {', '.join(sorted(names)) or 'none'}; "
            f"missing: {', '.join(sorted(required - names))}"
        )
    if jpeg:
        return _from_jpeg(path, arrays, {"train": train, "validation": validation, "test": test})
    parts = {}
    for part in _complete_parts(path, arrays, [f"{kind}_{{}}" for kind in PLAIN]):
        x = as_images(f"x_{part}", arrays[f"x_{part}"])
        parts[part] = x, as_labels(f"y_{part}", arrays[f"y_{part}"], len(x))
    return assemble(path.stem, parts).take(train=train, validation=validation, test=test)


def _complete_parts(path: Path, arrays: dict[str, Array], patterns: list[str]) -> list[str]:
    """The parts that the file has; ValueError where it has a part's arrays only in part."""
    found = []
    for part in PARTS:
        wanted = [pattern.format(part) for pattern in patterns]
        there = [name for name in wanted if name in arrays]
        if there and there != wanted:
            raise UsageError(
                f"data file {str(path)!r} has only {'one' if len(there) == 1 else 'two'} of "
                f"{', '.join(wanted[:-1])} and {wanted[-1]}"
            )
        found += [part] if there else []
    return found


def _from_jpeg(path: Path, arrays: dict[str, Array], limits: dict[str, int | None]) -> ImageData:
    complete = _complete_parts(path, arrays, [f"{{}}_{kind}" for kind in JPEG])
    labels = {part: _jpeg_labels(part, arrays) for part in complete}
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
    return assemble(path.stem, parts)


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
