"""Optional libraries: imported where they are adapted, and missed with the mend in one line."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import a library of an extra; ImportError with the pip line where it is missing.

    A library that is there but fails to import keeps its own error.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != root:
            raise
        raise ImportError(
            f'{root} is not installed; install it with: pip install "art-lfr[{extra}]"'
        ) from error
