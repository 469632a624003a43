"""Every table of comparisons and of speed, made again from the results in these folders.

    python benchmarks/tables.py
    python benchmarks/tables.py --runs RUNS

The second takes over the results of `compare.py --output RUNS` first. Each folder has its tables in
a file tables.md.
"""

from __future__ import annotations

import json
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


def write(folder: Path, source: str, tables: Mapping[str, str]) -> None:
    """The file tables.md of a folder; `source` is where its numbers lie."""
    parts = [f"## {name}\n\n{table}" for name, table in tables.items()]
    note = f"Made by `python benchmarks/tables.py` from the files in `{source}/`.\n"
    page = folder / "tables.md"
    write_atomically(page, "\n".join(["# The tables in full\n", note, *parts]))
    typer.echo(f"{page}: {len(tables)} tables")


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
        write(HERE / question, "results", tables)
    measured = {
        path.stem: speed_to_markdown(json.loads(path.read_text()))
        for path in sorted(MEASURED.glob("*.json"))
    }
    write(MEASURED.parent, MEASURED.name, measured)


if __name__ == "__main__":
    typer.run(main)
