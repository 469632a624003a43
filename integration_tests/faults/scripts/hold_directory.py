"""hold_directory.py PATH [file]: hold its lock until standard input ends."""

from __future__ import annotations

import sys
from pathlib import Path

from art_lfr.storage.files import locked

with locked(Path(sys.argv[1]), "path", file=len(sys.argv) > 2):
    print("held", flush=True)
    sys.stdin.read()
