"""The command `art-lfr`."""

from art_lfr.cli.app import app, main

__all__ = ["app", "main"]
