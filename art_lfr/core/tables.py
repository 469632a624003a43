"""One table in its four forms: for a terminal, in Markdown, in LaTeX, and in HTML for notebooks."""

from __future__ import annotations

import html
import shutil
import sys
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

# Where the width of the terminal is not known; no column is made narrower than the second.
WIDTH, NARROWEST = 80, 10


def terminal_width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def wrapped(text: str, width: int, indent: str = "") -> str:
    """Text in lines that break between words; those after the first are indented."""
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


class Shown(ABC):
    """What shows itself as a table: as text, Markdown, LaTeX, and by itself in a notebook."""

    @abstractmethod
    def shown(self) -> Table:
        """The table."""

    def __str__(self) -> str:
        return self.shown().to_text()

    def to_markdown(self) -> str:
        """The table in Markdown, accuracies in per cent, with what is beside it below."""
        return self.shown().to_markdown()

    def to_latex(self) -> str:
        """The table as a LaTeX tabular (package booktabs), what is beside it as comments."""
        return self.shown().to_latex()

    def _repr_html_(self) -> str:
        return self.shown().to_html()


@dataclass(frozen=True)
class Table:
    """Cells as text, under their titles.

    Attributes:
        header: The titles of the columns.
        cells: Rows of as many texts.
        lines: What stands below, paragraph by paragraph.
        title: What stands above.
        left: The columns of words, aligned to the left. The others are numbers.
        optional: The columns that text leaves out where not all of them fit side by side.
    """

    header: Sequence[str]
    cells: Sequence[Sequence[str]]
    lines: Sequence[str] = ()
    title: str = ""
    left: Sequence[int] = (0,)
    optional: Sequence[int] = ()

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, width: int | None = None) -> str:
        """In a frame, not wider than the terminal: columns are broken at their spaces."""
        width = width or terminal_width()
        encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
        style = "rounded_outline" if encoding.startswith("utf") else "outline"
        if self.optional and _width(self._drawn(style)) > width:
            return self._without_optional().to_text(width)
        table = self._fitted(style, width)
        above, below = (
            [wrapped(text, width) for text in texts]
            for texts in ([self.title] if self.title else [], self.lines)
        )
        return "\n".join([*above, table, *below])

    def _without_optional(self) -> Table:
        """The table without its optional columns, which a line names."""
        kept = [i for i in range(len(self.header)) if i not in self.optional]
        names = ", ".join(self.header[i] for i in self.optional)
        return Table(
            [self.header[i] for i in kept],
            [[row[i] for i in kept] for row in self.cells],
            [*self.lines, f"Left out, as the terminal is too narrow: {names}."],
            self.title,
            [kept.index(i) for i in self.left if i in kept],
        )

    def to_markdown(self) -> str:
        """A table of pipes; a pipe in a cell is escaped."""
        cells = [[cell.replace("|", "\\|") for cell in row] for row in self.cells]
        table = Table(self.header, cells, left=self.left)._drawn("pipe")
        title = [f"**{self.title}**"] if self.title else []
        return "\n\n".join([*title, table, *self.lines])

    def to_latex(self) -> str:
        """For the package booktabs; title and lines are comments."""
        title = [f"% {self.title}"] if self.title else []
        return "\n".join([*title, self._drawn("latex_booktabs"), *(f"% {n}" for n in self.lines)])

    def to_html(self) -> str:
        """As a notebook shows it."""
        title = f"<p><b>{html.escape(self.title)}</b></p>" if self.title else ""
        below = "".join(f"<p>{html.escape(line)}</p>" for line in self.lines)
        return f"{title}{self._drawn('html')}{below}"

    def _drawn(self, style: str, widths: list[int | None] | None = None) -> str:
        from tabulate import tabulate

        # Older releases break cells, but no titles.
        limits = widths or [None] * len(self.header)
        header = [
            title if limit is None else textwrap.fill(title, limit, break_long_words=False)
            for title, limit in zip(self.header, limits, strict=True)
        ]
        align = ["left" if i in self.left else "right" for i in range(len(self.header))]
        # As strings: numbers would lose their last zeros.
        return str(
            tabulate(
                self.cells,
                header,
                style,
                disable_numparse=True,
                colalign=align if self.cells else None,
                maxcolwidths=widths,
            )
        )

    def _fitted(self, style: str, width: int) -> str:
        """The table, the widest columns broken at their spaces where it would be too wide."""
        columns = [list(column) for column in zip(self.header, *self.cells, strict=True)]
        sizes = [max(map(len, column)) for column in columns]
        broken = [i for i, column in enumerate(columns) if any(" " in text for text in column)]
        limits: list[int | None] = [None] * len(sizes)
        while True:
            drawn = self._drawn(style, limits)
            over = _width(drawn) - width
            widest = max(broken, key=lambda i: sizes[i], default=None)
            if over <= 0 or widest is None or sizes[widest] <= NARROWEST:
                return drawn
            second = max([NARROWEST, *(sizes[i] for i in broken if i != widest)])
            sizes[widest] = max(sizes[widest] - over, min(second, sizes[widest] - 1))
            limits[widest] = sizes[widest]


def _width(drawn: str) -> int:
    """The columns of a terminal that a drawn table takes."""
    return len(drawn.partition("\n")[0])
