"""Mutation testing: mutmut changes the code in small ways, each of which a test must notice.

    python benchmarks/mutation/mutation.py

Run in the root of the checkout, without uncommitted changes in what is mutated. mutmut keeps what
it knows in `mutants/`: a stopped run goes on; after new tests, `--again` tries those mutants once
more that no test had noticed. Writes report.md: counts for each file, and every mutant that no
test noticed, with the reason that reasons.yaml gives for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import typer
import yaml

from art_lfr.storage.files import write_atomically

# A mutant that makes a test hang, or the process crash, has been noticed.
NOTICED = ("killed", "timeout", "segfault", "caught by type check")
FOLDER = Path(__file__).parent
MUTMUT = (sys.executable, "-m", "mutmut")


def main(children: int = os.cpu_count() or 1, again: bool = False) -> None:
    """Run what is left to run, and write the report."""
    names = [name for name, status in _results() if status not in NOTICED] if again else []
    subprocess.run([*MUTMUT, "run", "--max-children", str(children), *names], check=True)
    statuses = dict(_results())
    if left := [name for name, status in statuses.items() if status == "not checked"]:
        raise RuntimeError(f"{len(left)} mutants are not checked; run the command again")
    reasons: dict[str, str] = yaml.safe_load((FOLDER / "reasons.yaml").read_text())
    report = _report(statuses, reasons)
    write_atomically(FOLDER / "report.md", report)
    typer.echo(report)


def _results() -> list[tuple[str, str]]:
    """Name and status of every mutant."""
    listing = subprocess.run(
        [*MUTMUT, "results", "--all", "true"], capture_output=True, text=True, check=True
    )
    lines = [line.strip().rpartition(": ") for line in listing.stdout.splitlines() if ": " in line]
    return [(name, status) for name, _, status in lines if name.startswith("art_lfr.")]


def _report(statuses: dict[str, str], reasons: dict[str, str]) -> str:
    counts: dict[str, Counter[str]] = {}
    for name, status in statuses.items():
        # art_lfr.core.geometry.x_project_ball__mutmut_35
        module = name.split(".")[1:-1]
        for key in ("/".join(module) + ".py", "all"):
            counts.setdefault(key, Counter())[status] += 1
    rows = [
        {
            "file": file,
            "mutants": count.total(),
            "noticed": sum(count[status] for status in NOTICED),
            "per cent": 100 * sum(count[status] for status in NOTICED) / count.total(),
            **{status: n for status, n in count.items() if status not in NOTICED},
        }
        for file, count in sorted(counts.items(), key=lambda entry: entry[0] == "all")
    ]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    table = pd.DataFrame(rows).fillna(0).to_markdown(index=False, floatfmt=".0f")
    parts = [
        "# Mutation testing",
        f"Commit {commit}, mutmut {version('mutmut')}; made by `tox run -e mutation`.",
        table,
        "## Not noticed",
    ]
    for name in (name for name, status in statuses.items() if status not in NOTICED):
        change = _change(name)
        key = " | ".join(change)
        parts.append(
            f"`{name}`, {statuses[name]}: {reasons.get(key, 'no reason given')}\n\n"
            "```diff\n" + "\n".join(change) + "\n```"
        )
    return "\n\n".join(parts) + "\n"


def _change(name: str) -> list[str]:
    """The lines that a mutant takes away and puts in."""
    diff: Any = subprocess.run(
        [*MUTMUT, "show", name], capture_output=True, text=True, check=True
    ).stdout
    lines = [line for line in diff.splitlines() if line[:1] in "+-"]
    return [f"{s[0]} {s[1:].strip()}" for s in lines if s[:3] not in ("+++", "---")]


if __name__ == "__main__":
    typer.run(main)
