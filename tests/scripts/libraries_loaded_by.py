"""libraries_loaded_by.py MODULE...: prints which large libraries the modules import."""

from __future__ import annotations

import importlib
import sys

LIBRARIES = ("art", "torchattacks", "foolbox", "sklearn", "pandas")

for name in sys.argv[1:]:
    importlib.import_module(name)
print([library for library in LIBRARIES if library in sys.modules])
