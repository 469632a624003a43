"""Settings of Sphinx: `tox run -e docs` builds the pages into build/docs."""

from __future__ import annotations

import re
from typing import Any

import art_lfr

project = "art-lfr"
author = "the art-lfr developers"
release = art_lfr.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["upstream/trainer.rst"]  # a part of a page of ART's
html_theme = "furo"
html_title = "art-lfr"
myst_heading_anchors = 3  # pages can link to sections
autodoc_member_order = "bysource"
autodoc_typehints = "description"
default_role = "code"  # what docstrings have in backticks is code
smartquotes = False


def escape_formulas(*arguments: Any) -> None:
    """Docstrings are plain text: outside backticks, | and * are those of formulas."""
    lines: list[str] = arguments[-1]
    for number, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[number] = "".join(parts)


def setup(app: Any) -> None:
    """Called by Sphinx; before napoleon, which makes markup of its own."""
    app.connect("autodoc-process-docstring", escape_formulas, priority=1)
