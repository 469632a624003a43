"""The files of a comparison: results as JSON, tables, and a figure where matplotlib is there."""

from __future__ import annotations

import json
from pathlib import Path

from art_lfr.comparison.results import Results
from art_lfr.comparison.tables import to_latex, to_markdown
from art_lfr.plots.style import has_matplotlib, save_figure
from art_lfr.storage.files import write_atomically


def write_report(results: Results, directory: Path) -> None:
    """Write NAME.json (all runs), NAME.md, NAME.tex, and NAME.png."""
    name = results.comparison.name
    lines = ",\n ".join(json.dumps(run) for run in results.runs)
    write_atomically(directory / f"{name}.json", f"[{lines}]\n")
    write_atomically(directory / f"{name}.md", to_markdown(results))
    write_atomically(directory / f"{name}.tex", to_latex(results))
    if not has_matplotlib():
        return
    from art_lfr.comparison.drawing import time_figure

    save_figure(time_figure(results), directory / f"{name}.png")
