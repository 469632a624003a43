"""A small plan of a comparison, and comparisons that differ from it in some settings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from art_lfr.comparison.plan import Comparison, read_plan

PLAN: dict[str, Any] = {
    "name": "small",
    "data": "digits",
    "model": "digits-cnn",
    "eps": 0.1,
    "epochs": 2,
    "seeds": [0, 1],
    "splits": [0, 1],
    "methods": [
        {"name": "AT", "kind": "pgd"},
        {"name": "AT wide", "kind": "pgd", "eps": 1.25},
        {"name": "AT long", "kind": "pgd", "epochs": 5},
        {"name": "LFR", "kind": "lfr", "lam": 0.5},
    ],
}


@pytest.fixture
def small_plan() -> dict[str, Any]:
    """The settings of the plan; the test's own copy."""
    return copy.deepcopy(PLAN)


@pytest.fixture
def write_plan(tmp_path: Path) -> Callable[[Any], Path]:
    """Writer of a file of plans."""

    def write(content: Any) -> Path:
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def make_comparison(write_plan: Callable[[Any], Path]) -> Callable[..., Comparison]:
    """Maker of the comparison of that plan with other settings."""
    return lambda **changes: read_plan(write_plan({**PLAN, **changes}))[0]
