"""Imports ART where neither PyTorch nor this package is installed."""

from __future__ import annotations

import importlib.util
import sys


class Missing:
    def find_spec(name, *_):  # noqa: N805  # called on the class
        if name.split(".")[0] in ("torch", "art_lfr"):
            raise ImportError(name)


find_spec = importlib.util.find_spec  # by which ART looks whether torch is there
importlib.util.find_spec = lambda name, *_: None if name == "torch" else find_spec(name)
sys.meta_path.insert(0, Missing)

from art.defences.trainer import (  # noqa: E402
    AdversarialTrainerLFR,
    AdversarialTrainerLFRPyTorch,
)

assert issubclass(AdversarialTrainerLFRPyTorch, AdversarialTrainerLFR)
