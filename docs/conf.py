"""Settings of Sphinx: `tox run -e docs` builds the pages into build/docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.pycode import ModuleAnalyzer

import art_lfr
from art_lfr.cli import app as cli

HERE = Path(__file__).parent
project = "art-lfr"
author = "the art-lfr developers"
html_show_copyright = False
release = art_lfr.__version__
extensions = [
    "myst_nb",  # pages in Markdown, and notebooks as they were saved
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",  # formulas without a connection
    "sphinx.ext.viewcode",
    "sphinx_design",
]
exclude_patterns = ["upstream/trainer.rst"]  # a part of a page of ART's
html_theme = "furo"
html_title = f"art-lfr {release}"
html_static_path = ["static"]
html_css_files = ["tables.css"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3  # pages can link to sections
nb_execution_mode = "off"  # a test runs it
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_mock_imports = ["torchattacks"]  # asks for an older requests than Sphinx
default_role = "code"  # what docstrings have in backticks is code
smartquotes = False
# Kept in one place, shown as a page.
NOTEBOOK = "../examples/first_look.ipynb"
notebook = (HERE / NOTEBOOK).read_text().replace("](art_pipeline.py)", "](examples.md)")
(HERE / "first_look.ipynb").write_text(notebook)


def link_the_page(app: object, page: str, source: list[str]) -> None:
    """On the site the notebook lies beside the pages."""
    source[0] = source[0].replace(NOTEBOOK, "first_look.ipynb")


def show_one_signature() -> None:
    """Of a function with overloads, which are for type checkers, show the names of its keywords."""
    analyze = ModuleAnalyzer.analyze

    def without_overloads(analyzer: ModuleAnalyzer) -> None:
        analyze(analyzer)
        analyzer.overloads = {}

    ModuleAnalyzer.analyze = without_overloads  # type: ignore[method-assign]


def escape_formulas(*arguments: Any) -> None:
    """Docstrings are plain text: outside backticks, | and * are those of formulas."""
    lines: list[str] = arguments[-1]
    for number, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[number] = "".join(parts)


class CommandHelp(Directive):
    """What a command says under `--help`: text, examples, and its options panel by panel."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The paragraphs and lists."""
        command = typer.main.get_command(cli).commands[self.arguments[0]]
        found: list[nodes.Node] = []
        for part in re.sub(r"\[/?bold\]", "", command.help or "").split("\n\n"):
            text = part.strip()
            if text.startswith(("art-lfr", "accelerate")):
                found.append(nodes.literal_block(text, text, language="text"))
            elif text.startswith("Example:"):
                code = text.removeprefix("Example:").strip()
                found += [nodes.paragraph(text="Example:"), nodes.literal_block(code, code)]
            else:
                found.append(nodes.paragraph(text=" ".join(text.split())))
        panels: dict[str, nodes.definition_list] = {}
        for parameter in command.params:
            panel = getattr(parameter, "rich_help_panel", None) or (
                "Options" if parameter.opts[0].startswith("-") else "Arguments"
            )
            panels.setdefault(panel, nodes.definition_list()).append(_option(parameter))
        for panel, options in panels.items():
            found += [nodes.rubric(text=panel), options]
        return found


def _option(parameter: Any) -> nodes.definition_list_item:
    names = [*parameter.opts, *parameter.secondary_opts]
    if not names[0].startswith("-"):
        names = [str(parameter.metavar or names[0]).upper()]
    term = nodes.term()
    for number, name in enumerate(names):
        term += nodes.Text(", ") if number else nodes.Text("")
        term += nodes.literal(text=name)
    text = (getattr(parameter, "help", "") or "").replace("\\[", "[")
    default = getattr(parameter, "default", None)
    if isinstance(default, str | int | float | Path) and default != "" and default is not False:
        text += f" Default: {default}."
    return nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph(text=text)))


def setup(app: Any) -> None:
    """Called by Sphinx; before napoleon, which makes markup of its own."""
    show_one_signature()
    app.connect("autodoc-process-docstring", escape_formulas, priority=1)
    app.connect("source-read", link_the_page)
    app.add_directive("command-help", CommandHelp)
