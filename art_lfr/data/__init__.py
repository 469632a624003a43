"""Labelled images as float32 arrays, from a name or from a user's own files.

`load` takes what the command line takes for --data: the name of a data set, a .npz file or a
folder of images. `digits`, `load_torchvision`, `load_npz` and `load_folder` read one kind each;
all give an `ImageData`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from art_lfr.data.augmentation import (
        Augmentation,
        Compose,
        InvertibleAugmentation,
        RandomCrop,
        View,
        random_flip,
    )
    from art_lfr.data.files import load_folder, load_npz
    from art_lfr.data.image_data import MOST_CHANNELS, ImageData, with_validation
    from art_lfr.data.named import default_root, digits, load, load_torchvision
    from art_lfr.data.recipes import NAMES, RECIPES, Recipe, recipe_for

__all__ = [
    "MOST_CHANNELS",
    "NAMES",
    "RECIPES",
    "Augmentation",
    "Compose",
    "ImageData",
    "InvertibleAugmentation",
    "RandomCrop",
    "Recipe",
    "View",
    "default_root",
    "digits",
    "load",
    "load_folder",
    "load_npz",
    "load_torchvision",
    "random_flip",
    "recipe_for",
    "with_validation",
]

# On first use: the table of data sets is read without torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augmentation": [
            "Augmentation",
            "Compose",
            "InvertibleAugmentation",
            "RandomCrop",
            "View",
            "random_flip",
        ],
        "files": ["load_folder", "load_npz"],
        "image_data": ["MOST_CHANNELS", "ImageData", "with_validation"],
        "named": ["default_root", "digits", "load", "load_torchvision"],
        "recipes": ["NAMES", "RECIPES", "Recipe", "recipe_for"],
    },
)
