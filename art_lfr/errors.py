"""What goes wrong by a user's setting, and what by the data of a training.

The command line prints these in one line. Any other error is a bug, and shows its traceback.
"""

from __future__ import annotations


class UsageError(ValueError):
    """A value that cannot be used; the message names the parameter, its value and what may be."""


class PlaceError(UsageError, OSError):
    """A path at which nothing can be made or written; the message names the parameter."""


class WrongTypeError(TypeError):
    """A value of a type that cannot be used; the message names the parameter and what may be."""


class MissingLibraryError(ImportError):
    """A library of an extra that is not installed, or not usable; the message has the pip line."""


class TrainingError(RuntimeError):
    """Training stopped; the network holds the last good weights."""
