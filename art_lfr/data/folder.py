"""A user's folder of images, one folder a class."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path

import numpy as np

from art_lfr.core.arguments import check_integer
from art_lfr.data.decoding import decode
from art_lfr.data.image_data import ImageData, assemble
from art_lfr.data.selection import PARTS, choose
from art_lfr.errors import UsageError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


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
    path = Path(path)
    check_integer("seed", seed, low=0)
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
    sizes = {part: len(found) for part, found in files.items()}
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
    folders = (item for item in part.iterdir() if item.is_dir())
    return sorted(
        (folder for folder in folders if not folder.name.startswith(".")),
        key=lambda folder: folder.name,
    )


def _shuffled(part: Path, classes: tuple[str, ...], seed: int) -> list[tuple[Path, int]]:
    """Images of a part and their labels, in the order of the seed; none where it is missing."""
    if not part.is_dir():
        return []
    folders = _class_folders(part)
    if not folders:
        raise UsageError(
            f"data folder {str(part)!r} has no folders of classes; allowed: {', '.join(classes)}"
        )
    found = []
    for folder in folders:
        if folder.name not in classes:
            raise UsageError(
                f"data folder {str(part)!r} has the class {folder.name!r}, which train does not "
                f"have; allowed: {', '.join(classes)}"
            )
        images = sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in ENDINGS and not file.name.startswith(".")
        )
        if not images:
            raise UsageError(
                f"data folder {str(folder)!r} has no images; allowed: files ending in "
                f"{', '.join(ENDINGS)}"
            )
        found += [(file, classes.index(folder.name)) for file in images]
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[i] for i in order]
