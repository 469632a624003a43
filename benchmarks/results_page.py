"""Put the tables of benchmarks/results into their pages of docs/, between their marks.

A table NAME stands between the lines `<!-- NAME -->` and `<!-- end of NAME -->`; the text
around them is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

from art_lfr.storage.files import write_atomically

HERE = Path(__file__).parent
# Each page, and the folder of its tables.
PAGES = {
    HERE.parent / "docs/results.md": HERE / "results/comparisons",
    HERE.parent / "docs/performance.md": HERE / "results/speed",
}
MARKED = re.compile(r"<!-- (?P<name>\S+) -->\n.*?<!-- end of (?P=name) -->", re.DOTALL)


def renewed(page: str, tables: Path) -> str:
    """The page with every marked table as the file NAME.md in `tables` has it."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        text = (tables / f"{name}.md").read_text()
        return f"<!-- {name} -->\n{text}<!-- end of {name} -->"

    return MARKED.sub(table, page)


if __name__ == "__main__":
    for page, tables in PAGES.items():
        write_atomically(page, renewed(page.read_text(), tables))
