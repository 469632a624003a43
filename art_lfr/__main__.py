"""`art-lfr`, or `python -m art_lfr`."""

from __future__ import annotations

import importlib.util
import sys

LIBRARIES = ("typer", "rich", "yaml", "pandas")


def main() -> int:
    """Run the command; one line where the libraries of the command line are not installed."""
    # Looked for, not imported: `--help` answers at once.
    if missing := [name for name in LIBRARIES if importlib.util.find_spec(name) is None]:
        print(
            f"art-lfr: error: {missing[0]} is not installed; install it with: "
            'pip install "art-lfr[cli]"',
            file=sys.stderr,
        )
        return 2
    from art_lfr.cli.app import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
