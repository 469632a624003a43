"""What all figures share: an empty figure, colours, axes, and the file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from art_lfr.core.imports import require
from art_lfr.storage.files import check_output, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart under every common form of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FIGURE_FORMATS = (".png", ".pdf", ".svg")
DOTS_PER_INCH = 160
# Without the date: the same figure gives the same file.
_DATELESS: dict[str, dict[str, None]] = {
    ".png": {},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def has_matplotlib() -> bool:
    """Whether a command that can do without figures draws them."""
    return importlib.util.find_spec("matplotlib") is not None


def require_matplotlib() -> None:
    """Raise ImportError, with the line that mends it, where matplotlib is missing."""
    require("matplotlib.figure", "plots")


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty figure, in inches, without pyplot: no global state, no display."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(width, height), layout=layout)
    return figure


def tidy(axes: Any) -> None:
    """The house style of axes: a light grid, no box."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as .png (160 dots per inch), .pdf or .svg, atomically.

    Fonts in a .pdf are TrueType, as publishers ask. Raises ValueError for another ending or a
    place that cannot be written to.
    """
    require_matplotlib()
    import matplotlib

    path = Path(path)
    check_output(path, "path", FIGURE_FORMATS)
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "art-lfr"}):
        write_atomically(
            path,
            lambda file: figure.savefig(
                file,
                format=path.suffix[1:],
                dpi=DOTS_PER_INCH,
                metadata=_DATELESS[path.suffix],
            ),
        )
