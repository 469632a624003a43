"""import_robustbench.py [MISSING]: prints the error of the import as JSON, or null.

The module MISSING is made one that is not installed.
"""

from __future__ import annotations

import json
import sys

for missing in sys.argv[1:]:
    sys.modules[missing] = None
try:
    import art_lfr.robustbench  # noqa: F401

    error = None
except ImportError as raised:
    error = str(raised)
print(json.dumps(error))
