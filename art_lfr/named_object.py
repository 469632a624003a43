"""Objects of a user's own code, named on the command line or in a plan."""

from __future__ import annotations

import importlib
import os
import sys


def named_object(name: str) -> object:
    """What `module.path:attribute` names; the current directory can be imported from.

    As with `python -m`, which an installed command does not do by itself. Raises ValueError,
    without a parameter's name, where there is no such thing.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name!r}: {error}") from error
    return found
