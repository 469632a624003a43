"""Run commands; print the status of each and what slow libraries have been imported by then."""

import shlex
import sys

from art_lfr.cli import main

for line in sys.argv[1:]:
    status = main(shlex.split(line))
    print(f"{line}: {status}, {[name for name in ('torch', 'art') if name in sys.modules]}")
