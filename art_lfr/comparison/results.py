"""The finished runs of a comparison: as a table in Markdown and LaTeX, as a figure, as files."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from art_lfr.comparison.plan import Comparison
from art_lfr.comparison.runner import read_result, result_path
from art_lfr.core.arguments import Array
from art_lfr.core.intervals import Difference, paired_difference, wilson_interval
from art_lfr.core.tables import Shown, Table
from art_lfr.evaluation.run import CONSTANT
from art_lfr.plots.drawing import PALETTE, has_matplotlib, new_figure, save_figure, tidy
from art_lfr.storage.files import write_atomically
from art_lfr.storage.records import unpack

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# A baseline takes no longer than a method where it takes at most this multiple of its time.
TIME_TOLERANCE = 1.05
WORST = "worst case"
# Those that a narrow terminal shows.
MAIN_COLUMNS = ("method", "runs", "clean", WORST, "core seconds", "against AT")


class Results(Shown):
    """The finished runs of a comparison.

    `runs` are the JSON contents, in the order of the plan; `planned` says how many there will be.
    """

    def __init__(self, comparison: Comparison, runs: Sequence[Mapping[str, Any]]) -> None:
        self.comparison = comparison
        self.runs = list(runs)
        self.planned = sum(1 for _ in comparison.runs())

    @classmethod
    def read(cls, comparison: Comparison, directory: Path) -> Results:
        """Those whose results lie in `directory`."""
        finished = [r for r in comparison.runs() if result_path(r, directory).exists()]
        return cls(comparison, [read_result(run, directory) for run in finished])

    def of(self, method: str) -> dict[tuple[int, int], Mapping[str, Any]]:
        """A method's runs, by seed and split."""
        return {(r["seed"], r["split"]): r for r in self.runs if r["method"] == method}

    @property
    def methods(self) -> list[str]:
        """The methods that have a finished run, in the order of the plan."""
        names = [str(method["name"]) for method in self.comparison.methods]
        return [name for name in names if self.of(name)]

    def seconds(self, method: str) -> float:
        """Mean training time of a method, in seconds of one core.

        Stopped trainings do not count, unless all were stopped.
        """
        runs = _finished(self.of(method).values())
        return float(np.mean([run["times"][-1]["cpu_seconds"] for run in runs]))

    def epochs(self, method: str) -> int:
        """Epochs that a method's runs are planned to have."""
        return int(next(iter(self.of(method).values()))["settings"]["epochs"])

    def shown(self) -> Table:
        """A row for each method, under what was trained and judged."""
        frame = table(self)
        header, cells = list(frame.columns), frame.astype(str).values.tolist()
        words = [i for i, name in enumerate(header) if name in ("method", "masking")]
        optional = [i for i, name in enumerate(header) if name not in MAIN_COLUMNS]
        return Table(header, cells, constant_networks(self), heading(self), words, optional)

    def difference(self, method: str, other: str) -> Difference:
        """Worst-case accuracy of a method less that of another, over runs that both have."""
        runs, others = self.of(method), self.of(other)
        pairs = [key for key in runs if key in others]
        first, second = ([_worst(part[key]) for key in pairs] for part in (runs, others))
        return paired_difference(first, second, [split for _, split in pairs])

    def baseline(self, method: str, *, equal_time: bool) -> str | None:
        """The best PGD adversarial training with as many epochs, or within the method's time.

        The best on the runs (seed and split) that it shares with the method.
        """
        best: str | None = None
        runs, highest = self.of(method), -1.0
        for name in self.methods:
            others = self.of(name)
            rates = [run["accuracy"][WORST] for key, run in others.items() if key in runs]
            kind = next(iter(others.values()))["settings"]["kind"]
            if kind != "pgd" or name == method or not rates:
                continue
            within = self.seconds(name) <= TIME_TOLERANCE * self.seconds(method)
            fair = within if equal_time else self.epochs(name) == self.epochs(method)
            if fair and (rate := sum(rates) / len(rates)) > highest:
                best, highest = name, rate
        return best


def seconds_in_words(seconds: float) -> str:
    """Seconds, those below 10 with one decimal."""
    return f"{seconds:.{1 if seconds < 9.95 else 0}f}"


def _finished(runs: Collection[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without those whose training stopped, unless all did."""
    return [run for run in runs if "stopped" not in run] or list(runs)


def _worst(run: Mapping[str, Any]) -> Array:
    """Which images are right in the worst case, shape (N,)."""
    first, last = run["judged"]["images"]
    return unpack(run["correct"][WORST], last - first).numpy()


def table(results: Results) -> pd.DataFrame:
    """One row a method: means over its runs, and differences to adversarial training.

    `runs` says how many of them the trainer stopped, judged by the weights that it gave back.
    Accuracies are in per cent; `flatness` is the mean local flatness; `core seconds` the training
    time on one core; `against AT` the paired difference in worst-case points to the better PGD
    adversarial training with as many epochs, with its 95 % interval; `at equal time` the same to
    the best one that takes no longer; `masking` the runs whose masking report has no failed check.
    """
    rows: list[dict[str, Any]] = []
    for method in results.methods:
        runs = list(results.of(method).values())
        kind = runs[0]["settings"]["kind"]
        accuracy = pd.DataFrame([run["accuracy"] for run in runs]).mean()
        row: dict[str, Any] = {
            "method": method,
            "runs": _count(runs),
            "epochs": results.epochs(method),
            **{name: f"{100 * value:.1f}" for name, value in accuracy.items()},
            "flatness": f"{sum(run['flatness']['mean'] for run in runs) / len(runs):.3g}",
            "core seconds": seconds_in_words(results.seconds(method)),
        }
        for column, equal_time in (("against AT", False), ("at equal time", True)):
            other = None if kind == "pgd" else results.baseline(method, equal_time=equal_time)
            row[column] = "" if other is None else _shown(results.difference(method, other))
        if results.comparison.masking_images:
            row["masking"] = _masking(runs)
        rows.append(row)
    frame: pd.DataFrame = pd.DataFrame(rows)
    return frame


def _count(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many runs there are, and how many of them the trainer stopped before their end."""
    stopped = sum("stopped" in run for run in runs)
    return f"{len(runs)} ({stopped} stopped)" if stopped else str(len(runs))


def _shown(difference: Difference) -> str:
    return (
        f"{difference.mean:+.1f} ({difference.low:+.1f} to {difference.high:+.1f}) "
        f"{difference.verdict}"
    )


def _masking(runs: Sequence[Mapping[str, Any]]) -> str:
    """How many of the finished reports have no failed check."""
    reports = [run["masking"] for run in runs if "masking" in run]
    if not reports:
        return "not run"
    passed = [
        bool(r) and all(isinstance(c, dict) and c["verdict"] != "fail" for c in r.values())
        for r in reports
    ]
    return f"{sum(passed)} of {len(reports)} pass"


def constant_networks(results: Results) -> list[str]:
    """A line for each method some of whose networks name one class for all images."""
    lines = []
    for method in results.methods:
        runs = results.of(method).values()
        notes = [note for run in runs for note in run.get("notes", ()) if CONSTANT in note]
        if notes:
            lines.append(
                f"{method}: {len(notes)} of {len(runs)} networks name one class for all images"
            )
    return lines


def heading(results: Results) -> str:
    """What was trained and judged, in one line."""
    c, runs = results.comparison, results.runs
    first, last = runs[0]["judged"]["images"]
    data = runs[0]["data"]
    return (
        f"{c.title or c.name}: {c.model} on {data['name']} ({data['train']} training images), eps "
        f"{c.eps:g}, norm {c.norm}; judged on {c.part} images {first} to {last - 1}; "
        f"{len(runs)} of {results.planned} runs"
    )


# The shapes distinguish methods where there are more methods than colours.
MARKERS = ("o", "s", "^", "D", "v")


def time_figure(results: Results) -> Figure:
    """Worst-case accuracy (per cent) against seconds of one core, a line or point each method.

    A method with snapshots is a line over its epochs, one without is a point at its end: means over
    its runs. Bars are 95 % Wilson intervals over the images of one run.
    """
    figure = new_figure(9.0, 4.5)
    axes = figure.add_subplot()
    for index, method in enumerate(results.methods):
        runs = list(results.of(method).values())
        repeat, which = divmod(index, len(PALETTE))
        colour, marker = PALETTE[which], MARKERS[repeat % len(MARKERS)]
        first, last = runs[0]["judged"]["images"]
        points = _over_epochs(runs)
        if not points:  # no snapshots, or training stopped before the first
            rate = float(np.mean([run["accuracy"][WORST] for run in runs]))
            points = [(results.seconds(method), rate)]
        seconds, rates = (np.array(values) for values in zip(*points, strict=True))
        count = last - first
        bounds = np.array([wilson_interval(round(rate * count), count) for rate in rates]).T
        errors = np.abs(bounds - rates) * 100
        style: dict[str, Any] = {"label": method, "color": colour, "marker": marker, "capsize": 3}
        axes.errorbar(seconds, 100 * rates, errors, **style)
    axes.set(xlabel="training time, seconds of one core", ylabel="worst-case accuracy, %")
    c, (first, last) = results.comparison, results.runs[0]["judged"]["images"]
    axes.set_title(
        f"{c.title or c.name} (norm {c.norm}, eps {c.eps:g})\n"
        f"worst case of {', '.join(c.attacks)} on {c.part} images {first} to {last - 1}; "
        "bars: 95 % intervals over the images",
        fontsize=10,
    )
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    tidy(axes)
    return figure


def _over_epochs(runs: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Mean seconds and mean worst case at each epoch of which all runs have a snapshot.

    Without runs that were stopped, unless all were.
    """
    runs = _finished(runs)
    seen: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        when = {t["epoch"]: t["cpu_seconds"] for t in run["times"]}
        for snapshot in run.get("snapshots", []):
            point = when[snapshot["epoch"]], snapshot["accuracy"][WORST]
            seen.setdefault(snapshot["epoch"], []).append(point)
    means = (np.mean(points, axis=0) for points in seen.values() if len(points) == len(runs))
    return [(float(seconds), float(rate)) for seconds, rate in means]


def write_report(results: Results, directory: Path) -> list[Path]:
    """Write NAME.json (all runs), NAME.md, NAME.tex, and with matplotlib NAME.png; their paths."""
    lines = ",\n ".join(json.dumps(run) for run in results.runs)
    texts = {
        ".json": f"[{lines}]\n",
        ".md": f"{results.to_markdown()}\n",
        ".tex": f"{results.to_latex()}\n",
    }
    written = []
    for ending, text in texts.items():
        written.append(directory / f"{results.comparison.name}{ending}")
        write_atomically(written[-1], text)
    if has_matplotlib():
        written.append(directory / f"{results.comparison.name}.png")
        save_figure(time_figure(results), written[-1])
    return written
