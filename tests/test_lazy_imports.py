"""The core serves users without ART, and `import art_lfr` alone is instant."""

from __future__ import annotations

from pathlib import Path

import pytest
from lfr_testing import printed_by_python

import art_lfr

SCRIPTS = Path(__file__).with_name("scripts")
CORE = (
    "art_lfr.core.arguments",
    "art_lfr.core.geometry",
    "art_lfr.core.settings",
    "art_lfr.core.criterion",
    "art_lfr.core.modes",
    "art_lfr.core.randomness",
    "art_lfr.core.flatness",
    "art_lfr.loss",
    "art_lfr.measure",
)


def test_importing_the_package_loads_neither_torch_nor_art() -> None:
    code = "import sys, art_lfr; print([m for m in ('torch', 'art', 'numpy') if m in sys.modules])"
    assert printed_by_python("-c", code).strip() == "[]"


def test_core_works_with_art_absent() -> None:
    printed = printed_by_python(SCRIPTS / "core_without_art.py", *CORE)
    assert printed.strip() == "torch.Size([4])"


def test_core_loads_no_attack_library() -> None:
    assert printed_by_python(SCRIPTS / "libraries_loaded_by.py", *CORE).strip() == "[]"


def test_public_names() -> None:
    from art_lfr.loss import lfr_loss

    assert art_lfr.lfr_loss is lfr_loss
    assert set(art_lfr.__all__) <= set(dir(art_lfr))
    assert all(getattr(art_lfr, name) is not None for name in art_lfr.__all__)
    with pytest.raises(AttributeError, match="No art_lfr attribute lfr_los"):
        art_lfr.lfr_los  # noqa: B018
