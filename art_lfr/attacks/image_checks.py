"""Checks of images that an evaluation of hours must not fail on, nor silently misread."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from art_lfr.core.arguments import as_tensor, check_inputs
from art_lfr.data import MOST_CHANNELS
from art_lfr.errors import UsageError

# Square starts from stripes a fifth of an image wide, except for p = inf.
SMALLEST_SIDE_FOR_SQUARE = 5


def check_unit_images(name: str, x: object) -> Tensor:
    """Images in [0, 1] as a tensor, shape (N, C, H, W), floating point.

    Raises ValueError with the mend for integers, values outside [0, 1], and (N, H, W, C); TypeError
    for anything that is no array.
    """
    images = as_tensor(name, x).detach()
    if not images.is_floating_point():
        raise UsageError(
            f"{name} has dtype {images.dtype}; allowed: floating point images in [0, 1] "
            f"({name}.float() / 255 for bytes)"
        )
    check_inputs(name, images)
    if images.dim() != 4:
        raise UsageError(
            f"{name} has shape {tuple(images.shape)}; allowed: images of shape (N, C, H, W)"
        )
    if images.shape[3] <= MOST_CHANNELS < min(images.shape[1:3]):
        raise UsageError(
            f"{name} has shape {tuple(images.shape)}, which looks like (N, H, W, C); allowed: "
            f"(N, C, H, W), as {name}.transpose(0, 3, 1, 2) of an array is"
        )
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        mend = (
            f"divide {name} by 255"
            if low >= 0
            else "keep the images raw and put mean and standard deviation into the model"
        )
        raise UsageError(
            f"{name} has values from {low:g} to {high:g}; allowed: images in [0, 1] ({mend})"
        )
    return images


def check_class_indices(name: str, y: object, count: int, classes: int) -> Tensor:
    """Index labels as a tensor of int64, shape (N,), in 0..classes-1.

    Raises ValueError for another shape or dtype, and for labels that begin with 1.
    """
    labels = as_tensor(name, y).detach()
    integers = not labels.is_floating_point() and labels.dtype != torch.bool
    if labels.shape != (count,) or not integers or labels.is_complex():
        raise UsageError(
            f"{name} has shape {tuple(labels.shape)} and dtype {labels.dtype}; allowed: "
            f"{count} integer labels of shape ({count},), one for each image"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        mend = f"; they seem to begin with 1: use {name} - 1" if low == 1 <= high == classes else ""
        raise UsageError(
            f"{name} has labels from {low} to {high}; allowed: 0 to {classes - 1}, as the model "
            f"has {classes} classes{mend}"
        )
    return labels.long()


def check_square(x: Tensor, p: float, instead: str) -> None:
    """Raise ValueError where Square cannot attack x in the p-norm; `instead` is what a user can."""
    if x.dim() != 4:
        raise UsageError(
            f"x has shape {tuple(x.shape)}, but Square needs images (N, C, H, W); allowed: such "
            f"images, or {instead}"
        )
    if p != math.inf and min(x.shape[2:]) < SMALLEST_SIDE_FOR_SQUARE:
        raise UsageError(
            f"x has images of {x.shape[2]} x {x.shape[3]} pixels; allowed: at least "
            f"{SMALLEST_SIDE_FOR_SQUARE} x {SMALLEST_SIDE_FOR_SQUARE} for Square in this norm, or "
            f"{instead}"
        )
