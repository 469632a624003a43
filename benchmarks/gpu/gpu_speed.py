"""Times of an iteration: LFR, the published algorithm and adversarial training."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

from gpu_part import Job
from speed_tasks import SHAPES, Task, makers_of, seconds_of

NETWORKS = ("paper-cnn", "preact-resnet-18")
LFR, PGD = "iteration, LFR, as by default", "iteration, adversarial training, as by default"
TEN = "iteration, LFR, two gradients a step"
PUBLISHED, PLAIN = "iteration, as published", "iteration, PGD adversarial training"
LAST = ", channels last"


class Row(NamedTuple):
    """A task of speed_tasks.py, and how it is made."""

    task: str
    steps: int = 10
    bfloat16: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        how = [f"K = {self.steps}"] if "as by default" not in self.task else ["K = 2"]
        how += ["bfloat16"] if self.bfloat16 else []
        how += ["compiled"] if self.compiled else []
        return f"{self.task.removeprefix('iteration, ')}, {', '.join(how)}"


# All of one group are timed one after another in each round. Networks of this package's rows are
# in channels-last already. Without double back-propagation: torch.compile refuses it.
GROUPS = (
    [
        Row(LFR),
        Row(TEN),
        *(Row(task, steps) for steps in (10, 40) for task in (PUBLISHED, PLAIN)),
        *(Row(task + LAST) for task in (PUBLISHED, PLAIN)),
        Row(PGD),
        *(Row(task, bfloat16=True) for task in (LFR, TEN, PUBLISHED + LAST, PLAIN + LAST, PGD)),
    ],
    [Row(task, compiled=compiled) for task in (LFR, PLAIN + LAST) for compiled in (False, True)],
)
# Seconds that compiling a row may take: it cannot be stopped in between.
COMPILING = 45
# Each group has this part of what is left, and no more rounds than that.
PART, ROUNDS = (0.35, 0.45, 0.5, 0.9), 30


def run_part(job: Job) -> None:
    """The groups of both networks; the compiled ones, which take long to make, at the end."""
    job.result["tables"] = {}
    parts = iter(PART)
    for index, group in enumerate(GROUPS):
        for network in NETWORKS:
            table = job.result["tables"].setdefault(
                f"{network}, compiled" if index else network, {"rows": {}}
            )
            _measure(job, network, group, table, next(parts) * job.left)


def _measure(job: Job, network: str, group: list[Row], table: dict[str, Any], most: float) -> None:
    """Fill a table until `most` seconds are over; a row that cannot be made says why."""
    batch = 2 if job.rehearsal else SHAPES[network][0]
    table.update(input=[batch, *SHAPES[network][1:]], unit="ms, medians")
    until, tasks = job.left - most, dict[str, Task]()
    for row in group:
        if job.left < max(until, COMPILING if row.compiled else 0):
            table["rows"][str(row)] = "no time was left"
            continue
        if job.rehearsal and row.compiled:
            table["rows"][str(row)] = "not rehearsed"
            continue
        try:
            tasks[str(row)] = _made(job, network, row, batch)
        except Exception as error:  # whatever a compiler, a driver or a full memory says
            table["rows"][str(row)] = f"{type(error).__name__}: {str(error)[:500]}"
        job.write()
    rounds = 1 if job.rehearsal else ROUNDS
    for done, seconds in enumerate(seconds_of(tasks, rounds, job.wait), 1):
        for name, taken in seconds.items():
            table["rows"][name] = round(1000 * median(taken), 3)
        table["rounds"] = done
        job.write()
        if job.left < until:
            break


def _made(job: Job, network: str, row: Row, batch: int) -> Task:
    """The task, run twice: kernels are chosen, and code is compiled, in the first runs."""
    makers = makers_of(
        network,
        batch,
        min(row.steps, 2) if job.rehearsal else row.steps,
        device=job.device.type,
        bfloat16=row.bfloat16,
        compiled=row.compiled,
    )
    task = makers[row.task]()
    for _ in range(1 if job.rehearsal else 2):
        task()
    job.wait()
    return task
