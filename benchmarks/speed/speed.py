"""Time and memory of the parts of LFR, beside the published algorithm and adversarial training.

    python benchmarks/speed/speed.py time paper-cnn
    python benchmarks/speed/speed.py memory preact-resnet-18
    python benchmarks/speed/speed.py growth paper-cnn

All in one process, one after another in each of the rounds, so that a machine whose speed drifts is
as slow for all of them; medians. Random images: the work does not depend on what they show.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from operator import truediv
from pathlib import Path
from statistics import correlation, linear_regression, median
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from speed_tasks import SHAPES, STEPS, Key, Task, makers_of, seconds_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from art_lfr import __version__
from art_lfr.core.machine import describe_machine
from art_lfr.storage.files import write_atomically

app = typer.Typer(add_completion=False)
MEASURED = Path(__file__).parent / "measured"
PUBLISHED = "iteration, as published"


class Operations(TorchDispatchMode):
    """Counts the multiplications of layers by torch's own table, backward passes included.

    (torch's FlopCounterMode, which uses the same table, refuses gradients in a leaf.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            # The name of the last argument has changed with torch's versions.
            name = (
                "out_val"
                if "out_val" in inspect.signature(count, follow_wrapped=False).parameters
                else "out"
            )
            self.total += count(*args, **(kwargs or {}), **{name: out})
        return out


def passes_of(tasks: dict[str, Task]) -> dict[str, float]:
    """Operations of each task as a multiple of the first one's, a forward pass."""
    counted = {}
    for name, task in tasks.items():
        with Operations() as operations:
            task()
        counted[name] = operations.total
    unit = next(iter(counted.values()))
    return {name: count / unit for name, count in counted.items()}


@app.command("time")
def time_(
    network: str,
    output: Annotated[Path, typer.Option(help="Folder for NETWORK.json.")] = MEASURED,
    rounds: Annotated[int, typer.Option(help="How often each task is timed.")] = 20,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    only: Annotated[
        str, typer.Option(help="Rows whose names have one of these in them, with commas between.")
    ] = "",
    name: Annotated[str, typer.Option(help="In place of NETWORK in the file's name.")] = "",
) -> None:
    """Time every task of a network in turn, and print multiples of the forward pass."""
    torch.set_num_threads(threads)
    makers = makers_of(network)
    needed = (next(iter(makers)), PUBLISHED)
    chosen = [row for row in makers if row in needed or any(p in row for p in only.split(","))]
    tasks = {row: makers[row]() for row in chosen}
    unit = next(iter(tasks))
    passes = passes_of(tasks)  # also warms up
    seconds = _interleaved(tasks, rounds)
    rows = {
        name: {
            "ms": 1000 * median(taken),
            "forward passes": median(taken) / median(seconds[unit]),
            "counted": passes[name],
            "of the published": median(map(truediv, taken, seconds[PUBLISHED])),
        }
        for name, taken in seconds.items()
    }
    _write(output / f"{name or network}.json", network, {"rounds": rounds, "tasks": rows})


@app.command()
def memory(
    network: str,
    output: Annotated[Path, typer.Option(help="Folder for NETWORK-memory.json.")] = MEASURED,
    rounds: Annotated[int, typer.Option(help="How often each task is measured.")] = 3,
) -> None:
    """The memory that one run of each iteration adds at its peak, each in a process of its own.

    With one step of the ascent: each step frees what it took.
    """
    torch.set_num_threads(1)
    rows = {}
    for name in makers_of(network):
        if not name.startswith("iteration"):
            continue
        command = [sys.executable, __file__, "one", network, name]
        runs = [
            float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            for _ in range(rounds)
        ]
        rows[name] = {"MiB": median(runs)}
        typer.echo(f"{name} {rows[name]['MiB']:.0f} MiB")
    for row in rows.values():
        row["of the published"] = row["MiB"] / rows[PUBLISHED]["MiB"]
    content = {"rounds": rounds, "steps": 1, "tasks": rows}
    _write(output / f"{network}-memory.json", network, content)


@app.command()
def growth(
    network: str,
    output: Annotated[Path, typer.Option(help="Folder for NETWORK-growth.json.")] = MEASURED,
    rounds: Annotated[int, typer.Option(help="How often each iteration is timed.")] = 10,
    iterations: Annotated[int, typer.Option(help="Iterations that must leak nothing.")] = 1000,
) -> None:
    """An iteration's time against K and against the batch size, and memory over many iterations."""
    torch.set_num_threads(1)
    grown: dict[str, Any] = {}
    for what, values in (("steps", [2, 5, 10, 20]), ("batch", [32, 64, 128, 256])):
        tasks = {value: makers_of(network, **{what: value})["iteration, LFR"]() for value in values}
        times = [1000 * median(taken) for taken in _interleaved(tasks, rounds).values()]
        slope, intercept = linear_regression(values, times)
        grown[f"time against {what}"] = {
            "at": str(values),
            "measured": str([round(value, 1) for value in times]),
            "fit": f"{intercept:.1f} + {slope:.2f} each, R2 {correlation(values, times) ** 2:.4f}",
        }
    task = makers_of(network, batch=8, steps=2)["iteration, LFR"]()
    seen = []
    for index in range(iterations):
        task()
        if index % (iterations // 10) == iterations // 10 - 1:
            seen.append(round(_memory("VmRSS"), 1))
    grown["memory, MiB"] = {"at": f"each tenth of {iterations} iterations", "measured": str(seen)}
    _write(output / f"{network}-growth.json", network, {"rounds": rounds, "tasks": grown})


@app.command()
def one(network: str, task: str) -> None:
    """Run one task once and print the memory that it added at its peak, in MiB (Linux)."""
    torch.set_num_threads(1)
    run = makers_of(network, steps=1)[task]()
    # Forget the peak of the imports, which may be higher.
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    run()
    typer.echo(f"{_memory('VmHWM') - before}")


def _interleaved(tasks: dict[Key, Task], rounds: int) -> dict[Key, list[float]]:
    """The seconds of each task, one after another in each round."""
    *_, seconds = seconds_of(tasks, rounds)
    return seconds


def _memory(name: str) -> float:
    """What Linux says of this process: memory at present (VmRSS) or at its peak (VmHWM), MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return float(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def to_markdown(content: dict[str, Any]) -> str:
    """The table of a result, with what it was measured on."""
    rows = pd.DataFrame.from_dict(content["tasks"], orient="index").fillna("")
    shape, rounds = tuple(content["input"]), content["rounds"]
    return (
        f"{content['network']}, input {shape}, K = {content['steps']}, medians of {rounds} rounds, "
        f"{content['machine']}, torch {content['versions']['torch']}\n\n"
        f"{rows.to_markdown(floatfmt=('', '.1f', '.2f', '.2f', '.2f'))}\n"
    )


def _write(path: Path, network: str, content: dict[str, Any]) -> None:
    about = {
        "network": network,
        "input": SHAPES[network],
        "steps": STEPS,
        "machine": describe_machine(),
        "versions": {"art_lfr": __version__, "torch": torch.__version__},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({**about, **content}, indent=1) + "\n")
    typer.echo(to_markdown({**about, **content}))


if __name__ == "__main__":
    app()
