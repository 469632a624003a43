"""Every table of comparisons and of speed, made again from the results in these folders.

    python benchmarks/tables.py
    python benchmarks/tables.py --runs RUNS

The second takes over the results of `compare.py --output RUNS` first. A page shows the table NAME
between the lines `<!-- NAME -->` and `<!-- end of NAME -->`; the text around it is written by hand.
Comparisons that no page shows in full are in the file tables.md of their folder.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Optional

import typer
from plans import HERE, published, questions, results_path

from art_lfr.storage.files import write_atomically

sys.path.insert(0, str(HERE / "speed"))
from speed import MEASURED
from speed import to_markdown as speed_to_markdown

DOCS = HERE.parent / "docs"
# The page that shows all comparisons of a folder.
PAGES = {"robustness": DOCS / "results.md"}
SPEED_PAGE = DOCS / "performance.md"
MARKED = re.compile(r"<!-- (?P<name>\S+) -->\n.*?<!-- end of (?P=name) -->", re.DOTALL)


def renewed(page: str, tables: Mapping[str, str]) -> str:
    """The page with the text between its marks as `tables` has it."""

    def marked(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- {name} -->\n{tables[name]}<!-- end of {name} -->"

    return MARKED.sub(marked, page)


def listed(tables: Mapping[str, str]) -> str:
    """The file tables.md of a folder."""
    parts = [f"## {name}\n\n{table}" for name, table in tables.items()]
    note = "Made by `python benchmarks/tables.py` from the files in `results/`.\n"
    return "\n".join(["# The tables in full\n", note, *parts])


def main(
    runs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Output folder of compare.py: its NAME.json are taken over first."),
    ] = None,
) -> None:
    """Write the tables."""
    for question, comparisons in questions().items():
        tables = {}
        for name in comparisons:
            path = results_path(name)
            if runs is not None and (made := runs / path.name).is_file():
                write_atomically(path, made.read_text())
                typer.echo(f"{path} is that of {made}")
            if path.is_file():
                tables[name] = published(name).to_markdown() + "\n"
        page = PAGES.get(question, HERE / question / "tables.md")
        text = renewed(page.read_text(), tables) if question in PAGES else listed(tables)
        write_atomically(page, text)
        typer.echo(f"{page}: {len(tables)} tables")
    tables = {
        path.stem: speed_to_markdown(json.loads(path.read_text()))
        for path in sorted(MEASURED.glob("*.json"))
    }
    write_atomically(SPEED_PAGE, renewed(SPEED_PAGE.read_text(), tables))
    typer.echo(f"{SPEED_PAGE}: {len(tables)} tables")


if __name__ == "__main__":
    typer.run(main)
