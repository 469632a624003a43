"""A comparison that takes seconds, and the networks by name that it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from art_lfr.cli.inputs import load_model
from art_lfr.comparison.plan import Comparison, read_plan


@pytest.fixture
def tiny_plan(tmp_path: Path) -> Callable[..., Comparison]:
    """Maker of a comparison on a few digits from a file of its settings, `plan.yaml`."""

    def make(**changes: Any) -> Comparison:
        settings = {
            "name": "tiny",
            "data": "digits",
            "model": "digits-cnn",
            "eps": 0.1,
            "epochs": 2,
            "batch_size": 32,
            "train": 64,
            "validation": 30,
            "part": "validation",
            "attacks": ["PGD-40"],
            "methods": [{"name": "plain", "kind": "standard"}],
            **changes,
        }
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(settings))
        return read_plan(path)[0]

    return make


@pytest.fixture
def make_network() -> Callable[[str, int, int], nn.Module]:
    """Maker of a comparison's network from its name, seed and number of classes."""
    return lambda name, seed, classes: load_model(name, None, seed, classes)
