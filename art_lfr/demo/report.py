"""A folder with a report on trained models: report.md, results.json and figures."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_lfr.errors import UsageError
from art_lfr.evaluation.results import Evaluation
from art_lfr.storage.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120


def comparison(evaluations: Mapping[str, Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of one table: a row for each attack, a column for each model.

    Accuracies in per cent with their 95 % intervals; the last row is the mean local flatness.
    Raises ValueError where the models were not evaluated with the same attacks.
    """
    first = next(iter(evaluations.values()))
    names = [row.name for row in first.rows]
    for model, evaluation in evaluations.items():
        if [row.name for row in evaluation.rows] != names:
            raise UsageError(f"evaluations[{model!r}] has other attacks than {', '.join(names)}")
    cells = [[name] for name in names]
    for evaluation in evaluations.values():
        for line, row in zip(cells, evaluation.rows, strict=True):
            interval = f"({100 * row.low:.1f} to {100 * row.high:.1f})"
            line.append(f"{100 * row.accuracy:.1f} % {interval}")
    means = [f"{e.flatness_summary['mean']:.3g}" for e in evaluations.values()]
    return ["", *evaluations], [*cells, ["mean flatness", *means]]


def write_report(
    folder: str | Path,
    *,
    title: str,
    summary: str,
    evaluations: Mapping[str, Evaluation],
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    figures: Mapping[str, tuple[str, Figure]],
    settings: Mapping[str, Any],
) -> Path:
    """Write report.md, results.json and the figures into `folder`, each file atomically.

    `figures` maps file names without ending to (caption, figure). `settings` are JSON types.
    results.json comes last, so a folder that has it is complete. Other files in the folder are
    left alone. Returns the path of report.md.
    """
    from tabulate import tabulate

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "results.json").exists():
        (folder / "results.json").unlink()
    header, cells = comparison(evaluations)
    first = next(iter(evaluations.values()))
    parts = [
        f"# {title}",
        summary,
        "## Accuracy and flatness",
        tabulate(cells, header, "github", disable_numparse=True),
        f"{first.rows[0].images} test images, eps {first.eps:g}, norm {first.norm}; 95 % Wilson "
        "intervals in brackets. The worst case counts an image only where it is classified "
        "correctly without an attack and under each. Flatness is the largest dual norm of the "
        "loss gradient found in the ball, in nats per unit of x; small is flat.",
    ]
    for name, (caption, figure) in figures.items():
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=DOTS_PER_INCH)
        write_atomically(folder / f"{name}.png", image.getvalue())
        parts += [f"## {caption.partition('.')[0]}", f"![{name}]({name}.png)", caption]
    parts += ["## Settings", "\n".join(f"- {key}: {value}" for key, value in settings.items())]
    results = {
        "settings": dict(settings),
        "evaluations": {name: e.to_dict() for name, e in evaluations.items()},
        "histories": {name: [dict(r) for r in records] for name, records in histories.items()},
    }
    write_atomically(folder / "report.md", "\n\n".join(parts) + "\n")
    write_atomically(folder / "results.json", json.dumps(results, indent=1) + "\n")
    return folder / "report.md"
