"""The tables of docs/results.md, from the published runs and from `autoattack.json`.

    python benchmarks/robustness/evidence.py

writes them anew between the lines `<!-- NAME -->` and `<!-- end -->`; the text is written by hand.
Digits are those of split 0 alone: settings were chosen on its images, and a hundred test images of
the other splits were among them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from plans import DOCS, published, renewed
from shipped import ROWS

from art_lfr.comparison.results import WORST, Results
from art_lfr.storage.files import write_atomically

MEASURED = Path(__file__).parent / "autoattack.json"
PAGE = DOCS / "results.md"
AT, AT_H = "adversarial training at eps", "adversarial training at eps + h"
AT_WARM, AT_H_WARM = f"{AT}, warm-started", f"{AT_H}, warm-started"
WARM, COLD = "LFR, warm-started", "LFR, cold-started"
# Of each table the methods that the page shows, by the names it gives them. Clipped alike, but for
# CIFAR-10 and where a name says so.
SHOWN: dict[str, dict[str, str]] = {
    "digits-0.1": {
        WARM: WARM,
        COLD: "LFR, clipped",
        AT: "AT, clipped",
        AT_H: "AT at eps + h, clipped",
        "at eps + h, for cold-started LFR's time": "AT at eps + h, clipped, 45 epochs",
        "TRADES": "TRADES, clipped",
    },
    "digits-0.2": {
        WARM: WARM,
        COLD: "LFR, clipped, lr 0.5",
        AT: "AT, clipped, lr 0.3",
        AT_H: "AT at eps + h, clipped, lr 0.3",
        "TRADES": "TRADES, clipped, lr 0.3",
        "LFR, differentiated twice, no clip": "LFR exact",
    },
    "digits-l2": {
        WARM: WARM,
        COLD: "LFR, clipped",
        AT: "AT, clipped",
        AT_H: "AT at eps + h, clipped",
        "TRADES": "TRADES, clipped",
        "LFR, differentiated twice, no clip": "LFR exact",
    },
    "mnist": {
        WARM: WARM,
        AT: "AT, clipped, lr 0.2",
        AT_H: "AT at eps + h, clipped, lr 0.2",
        AT_WARM: "AT, warm-started, lr 0.2",
        AT_H_WARM: "AT at eps + h, warm-started, lr 0.2",
        "TRADES": "TRADES, clipped, lr 0.2",
        f"{COLD}, no clip": "LFR",
        f"{AT}, no clip": "AT, lr 0.05",
        "the same, for cold-started LFR's time": "AT, lr 0.05, 6 epochs",
        "LFR, differentiated twice, no clip": "LFR exact",
    },
    "mnist-l2": {
        WARM: WARM,
        COLD: "LFR",
        AT: "AT",
        AT_H: "AT at eps + h",
        AT_WARM: "AT, warm-started",
        AT_H_WARM: "AT at eps + h, warm-started",
        "TRADES": "TRADES",
    },
    "mnist-paper-cnn": {
        COLD: "LFR, clipped",
        "the same, 16 epochs": "LFR, clipped, 16 epochs",
        AT: "AT, clipped",
        AT_H: "AT at eps + h, clipped",
    },
    "cifar10": {
        f"{WARM}, clipped": WARM,
        COLD: "LFR",
        AT: "AT",
        AT_H: "AT at eps + h",
        "TRADES": "TRADES",
        "LFR as published": "exact as published",
    },
}
# Not run beside the adversarial training that `time` is a multiple of.
ELSEWHERE = {
    "digits-0.1": (WARM,),
    "digits-0.2": (WARM,),
    "digits-l2": (WARM,),
    "mnist": tuple(
        label for label in SHOWN["mnist"] if "no clip" in label or "cold-started" in label
    ),
    "mnist-l2": (WARM, AT_WARM, AT_H_WARM),
    "cifar10": (f"{WARM}, clipped",),
}
HEAD = "| method | runs | clean | worst case | AutoAttack | time | against AT | verdict |"
ALIGNED = "|:--|--:|--:|--:|--:|--:|--:|:--|"


def results_of(name: str) -> Results:
    """The published runs of a table, of digits those of split 0."""
    results = published(name)
    if results.comparison.data == "digits":
        results.runs = [run for run in results.runs if run["split"] == 0]
    return results


def best_at(name: str, results: Results, labels: Sequence[str]) -> str:
    """The best adversarial training of these, all with as many epochs as LFR."""
    found = [SHOWN[name][label] for label in labels if label in SHOWN[name]]
    return max(found, key=lambda method: _mean(results, method, WORST))


def rows(name: str) -> list[str]:
    """The table of a task."""
    results = results_of(name)
    attacked = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    by_method = {
        method: attacked[network]
        for network, (_, table, method) in ROWS.items()
        if table == name and network in attacked
    }
    rival = best_at(name, results, (AT, AT_H, AT_WARM, AT_H_WARM))
    second = results.seconds(best_at(name, results, (AT, AT_H)))
    lines = [HEAD, ALIGNED]
    for label, method in SHOWN[name].items():
        clean, worst = (f"{_mean(results, method, key):.1f}" for key in ("clean", WORST))
        entry = by_method.get(method)
        attack = "" if entry is None else f"{100 * entry['autoattack']:.1f}"
        time = "" if label in ELSEWHERE.get(name, ()) else f"{results.seconds(method) / second:.2f}"
        against = verdict = ""
        if method != rival:
            found = results.difference(method, rival)
            against = f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
            verdict = "one run" if found.runs == 1 else found.verdict
        runs = len(results.of(method))
        lines.append(
            f"| {label} | {runs} | {clean} | {worst} | {attack} | {time} | {against} | {verdict} |"
        )
    return lines


def about(name: str) -> str:
    """What the rows of a table are of."""
    results = results_of(name)
    first, last = results.runs[0]["judged"]["images"]
    epochs = results.epochs(SHOWN[name][AT])
    split = ", split 0" if results.comparison.data == "digits" else ""
    said = f"{epochs} epochs{split}, test images {first:,} to {last - 1:,}. "
    return said + masking(name, results)


def masking(name: str, results: Results) -> str:
    """Which checks of the masking reports fail, in the runs of which rows."""
    failing: dict[str, list[str]] = {}
    for label, method in SHOWN[name].items():
        reports = [run["masking"] for run in results.of(method).values() if run.get("masking")]
        failed = Counter(
            check for report in reports for check, of in report.items() if of["verdict"] == "fail"
        )
        for check, times in failed.items():
            some = "" if times == len(reports) else f" ({times} of {len(reports)} runs)"
            failing.setdefault(check, []).append(f'"{label}"{some}')
    if not failing:
        return "Masking reports: no check fails."
    said = [f"*{check}* fails in {', '.join(rows)}" for check, rows in failing.items()]
    return f"Masking reports: {'; '.join(said)}."


def autoattack_rows() -> list[str]:
    """AutoAttack and the masking report of each network that is attacked."""
    lines = [
        "| network | images | clean | AutoAttack | 95 % interval | masking report |",
        "|:--|--:|--:|--:|--:|:--|",
    ]
    for network, entry in json.loads(MEASURED.read_text()).items():
        failed = [check for check, (verdict, _) in entry["masking"].items() if verdict == "fail"]
        first, last = entry["images"]
        lines.append(
            f"| {network} | {last - first} | {100 * entry['clean']:.1f} | "
            f"{100 * entry['autoattack']:.1f} | {100 * entry['low']:.1f} to "
            f"{100 * entry['high']:.1f} | {'; '.join(failed) or 'no check fails'} |"
        )
    return lines


def _mean(results: Results, method: str, attack: str) -> float:
    return 100 * float(np.mean([r["accuracy"][attack] for r in results.of(method).values()]))


def tables() -> dict[str, list[str]]:
    """The lines of each table of the page."""
    found = {name: [about(name), "", *rows(name)] for name in SHOWN}
    return {**found, "autoattack": autoattack_rows() if MEASURED.exists() else []}


def main() -> None:
    """Write the page."""
    write_atomically(PAGE, renewed(PAGE.read_text(), tables()))


if __name__ == "__main__":
    typer.run(main)
