"""Optional libraries, and objects of a user's own code that are known by name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from art_lfr.errors import MissingLibraryError, UsageError

if TYPE_CHECKING:
    import pandas


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
        raise MissingLibraryError(
            f'{root} is not installed; install it with: pip install "art-lfr[{extra}]"'
        ) from error


def data_frame(*arguments: Any, **keywords: Any) -> pandas.DataFrame:
    """`pandas.DataFrame(...)`, with the pip line where pandas is missing."""
    frame: pandas.DataFrame = require("pandas", "cli").DataFrame(*arguments, **keywords)
    return frame


def named_object(name: str) -> object:
    """What `module.path:attribute` names; the current directory can be imported from.

    As with `python -m`, which an installed command does not do by itself. Raises ValueError,
    without a parameter's name, where there is no such thing.
    """
    module, _, attribute = name.partition(":")
    _search_here()
    try:
        value: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{name!r}: {error}") from error
    except Exception as error:  # of a user's own code
        raise UsageError(f"{name!r}: {type(error).__name__}: {error}") from error
    return value


def check_package(name: str) -> None:
    """Raise ValueError where there is no package of `module.path:attribute`; imports nothing."""
    _search_here()
    package = name.partition(":")[0].partition(".")[0]
    if package not in sys.modules and not (package and importlib.util.find_spec(package)):
        raise UsageError(f"{name!r}: No module named {package!r}")


def _search_here() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
