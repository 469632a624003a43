"""The core serves users without ART, and `import art_lfr` alone is instant."""

from __future__ import annotations

import subprocess
import sys

import pytest

import art_lfr

CORE = ("core.arguments", "core.geometry", "core.settings", "core.criterion", "core.modes",
        "core.randomness", "core.flatness", "loss", "measure")  # fmt: skip


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_neither_torch_nor_art() -> None:
    code = "import sys, art_lfr; print([m for m in ('torch', 'art', 'numpy') if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_core_works_with_art_absent() -> None:
    code = f"""
import sys
sys.modules["art"] = None  # `import art` raises ImportError
import importlib
for name in {CORE}:
    importlib.import_module("art_lfr." + name)
import torch
from art_lfr import LFRLoss, lfr_loss, local_flatness
model = torch.nn.Linear(3, 2)
x, y = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])
lfr_loss(model, x, y, eps=0.1, estimator="exact").total.backward()
LFRLoss(eps=0.1)(model, x, y).total.backward()
print(local_flatness(model, x, y, eps=0.1).shape)
"""
    assert run(code).strip() == "torch.Size([4])"


def test_core_loads_no_attack_library() -> None:
    code = f"""
import importlib, sys
for name in {CORE}:
    importlib.import_module("art_lfr." + name)
print([m for m in ("art", "torchattacks", "foolbox", "sklearn", "pandas") if m in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_public_names() -> None:
    from art_lfr.loss import lfr_loss

    assert art_lfr.lfr_loss is lfr_loss
    assert set(art_lfr.__all__) <= set(dir(art_lfr))
    assert all(getattr(art_lfr, name) is not None for name in art_lfr.__all__)
    with pytest.raises(AttributeError, match="No art_lfr attribute lfr_los"):
        art_lfr.lfr_los  # noqa: B018
