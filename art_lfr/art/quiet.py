"""ART's other trainers without their bars, which no setting of theirs hides."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

MODULES = tuple(
    f"art.defences.trainer.adversarial_trainer{name}"
    for name in ("", "_awp_pytorch", "_fbf_pytorch", "_trades_pytorch")
)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, ART's trainers show no bars."""
    modules = [importlib.import_module(name) for name in MODULES]
    bars = [(m, n, getattr(m, n)) for m in modules for n in ("tqdm", "trange") if hasattr(m, n)]
    for module, name, shown in bars:
        setattr(module, name, partial(shown, disable=True))
    try:
        yield
    finally:
        for module, name, shown in bars:
            setattr(module, name, shown)
