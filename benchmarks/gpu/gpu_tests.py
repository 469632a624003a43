"""The default tests of the layers below ART, on the device."""

from __future__ import annotations

import time
from typing import Any

import pytest
from gpu_part import ROOT, Job

FOLDERS = ("core", "penalties", "loss", "training", "measure")
# A few of each kind for a rehearsal.
FEW = ("core/test_radius.py", "training/test_warm_start.py", "loss/test_inputs.py")
# What is missing; its wheel alone is 40 MiB.
NOT_RUN = {
    "tests/measure/test_inference_mode.py::test_results_are_the_same[autoattack]": "pyautoattack"
}
# Characters of a failure that are kept, and failures that are kept with them.
TAIL, MOST = 1500, 40


class Recorder:
    """A plugin of pytest that keeps the result up to date, and stops when the time is over."""

    def __init__(self, job: Job) -> None:
        self.job, self.written = job, 0.0
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.failures: dict[str, str] = {}
        self.collected = 0

    def pytest_collection_finish(self, session: Any) -> None:
        self.collected = len(session.items)
        self.session = session

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._failed(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._failed(report)
        elif report.skipped or report.when == "call":
            self.counts[report.outcome] += 1
        if time.monotonic() - self.written > 2:
            self.write()
        if self.job.left < 0:
            self.session.shouldstop = "the time is over"

    def pytest_sessionfinish(self) -> None:
        self.write()

    def _failed(self, report: Any) -> None:
        self.counts["failed"] += 1
        text = report.longreprtext[-TAIL:] if len(self.failures) < MOST else ""
        self.failures[report.nodeid] = text
        self.write()

    def write(self) -> None:
        self.written = time.monotonic()
        done = sum(self.counts.values())
        self.job.write(
            **self.counts,
            left_out=max(0, self.collected - done),
            failures=self.failures,
            not_run=NOT_RUN,
        )


def run_part(job: Job) -> None:
    """Run pytest in this process, so that each test counts as soon as it has ended."""
    chosen = FEW if job.rehearsal else FOLDERS
    arguments = [f"--device={job.device.type}", "-q", "-p", "no:cacheprovider"]
    code = pytest.main(
        [
            f"--rootdir={ROOT}",
            f"--config-file={ROOT / 'pyproject.toml'}",
            *arguments,
            *(f"--deselect={name}" for name in NOT_RUN),
            *(str(ROOT / "tests" / name) for name in chosen),
        ],
        plugins=[Recorder(job)],
    )
    job.write(pytest=int(code))
