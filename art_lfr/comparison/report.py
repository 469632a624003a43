"""The files of a comparison: results as JSON, tables, and a figure where matplotlib is there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from art_lfr.comparison.tables import Results, to_latex, to_markdown
from art_lfr.files import write_atomically


def write_report(results: Results, directory: Path) -> None:
    """Write NAME.json (all runs), NAME.md, NAME.tex, and NAME.png."""
    name = results.comparison.name
    lines = ",\n ".join(json.dumps(run) for run in results.runs)
    write_atomically(directory / f"{name}.json", f"[{lines}]\n")
    write_atomically(directory / f"{name}.md", to_markdown(results))
    write_atomically(directory / f"{name}.tex", to_latex(results))
    if importlib.util.find_spec("matplotlib") is None:
        return
    from art_lfr.comparison.drawing import time_figure
    from art_lfr.plots.style import save_figure

    save_figure(time_figure(results), directory / f"{name}.png")
