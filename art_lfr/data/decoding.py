"""Image files (JPEG, PNG and others) as arrays of one shape, through Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from art_lfr.core.imports import require
from art_lfr.errors import UsageError

# The extra of this package that installs Pillow and torchvision.
EXTRA = "vision"
# Bits of a channel that fit a byte; others would be cut off by a conversion.
GREY_MODES = ("1", "L")
COLOUR_MODES = ("RGB", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB")


def decode(
    files: Iterable[tuple[str, Path | bytes]], size: tuple[int, int] | None = None
) -> npt.NDArray[Any]:
    """Images as float32 in [0, 1], shape (N, C, H, W), from pairs of a name and a path or bytes.

    C is 1 where every image is grey, else 3; transparency is dropped. `size` is the height and
    width to resize to (bilinear); without it all must have one size. The pixels of a JPEG may
    differ by 1/255 between versions of the decoder.

    Raises ValueError, with the file's name, for what Pillow cannot read, for more than 8 bits a
    channel and for unequal sizes; ImportError where Pillow is missing.
    """
    images: list[npt.NDArray[Any]] = []
    first = ""
    for name, file in files:
        pixels = _pixels(name, file, size)
        first = first or name
        if images and pixels.shape[:2] != images[0].shape[:2]:
            raise UsageError(
                f"{name} has {_sides(pixels)} pixels and {first} has {_sides(images[0])}; allowed: "
                "images of one size, or load_folder(..., size=...), which resizes them"
            )
        images.append(pixels)
    channels = max(image.shape[2] for image in images)
    stacked = np.empty((len(images), channels, *images[0].shape[:2]), dtype=np.float32)
    for row, image in zip(stacked, images, strict=True):
        row[:] = np.moveaxis(image, 2, 0)  # a grey image fills all channels
    stacked /= np.float32(255)
    return stacked


def _pixels(name: str, file: Path | bytes, size: tuple[int, int] | None) -> npt.NDArray[Any]:
    """One image as uint8, shape (H, W, C)."""
    pillow = require("PIL.Image", EXTRA)
    try:
        with pillow.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            mode = image.mode
            if mode in (*GREY_MODES, *COLOUR_MODES):
                image = image.convert("L" if mode in GREY_MODES else "RGB")
                if size is not None:
                    image = image.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
                pixels: npt.NDArray[Any] = np.asarray(image)
                return pixels.reshape(*pixels.shape[:2], -1)
    except (OSError, SyntaxError, ValueError, EOFError, pillow.DecompressionBombError) as error:
        raise UsageError(f"{name} cannot be read as an image: {error}") from error
    raise UsageError(
        f"{name} has Pillow's mode {mode!r}; allowed: images of 8 bits a channel, grey or colour"
    )


def _sides(pixels: npt.NDArray[Any]) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]}"
