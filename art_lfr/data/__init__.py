"""Labelled images as float32 arrays, from a name or from a user's own files.

`load` takes what the command line takes for --data: the name of a data set, a .npz file or a
folder of images. `digits`, `load_torchvision`, `load_npz` and `load_folder` read one kind each;
all give an `ImageData`.
"""

from __future__ import annotations

from art_lfr.data.augmentation import Augmentation, Compose, RandomCrop, random_flip
from art_lfr.data.files import load_folder, load_npz
from art_lfr.data.image_data import MOST_CHANNELS, ImageData, with_validation
from art_lfr.data.named import NAMES, check_data_name, default_root, digits, load, load_torchvision

__all__ = [
    "MOST_CHANNELS",
    "NAMES",
    "Augmentation",
    "Compose",
    "ImageData",
    "RandomCrop",
    "check_data_name",
    "default_root",
    "digits",
    "load",
    "load_folder",
    "load_npz",
    "load_torchvision",
    "random_flip",
    "with_validation",
]
