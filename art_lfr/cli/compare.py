"""The command that compares training methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_lfr.cli import options
from art_lfr.errors import UsageError


def compare(
    plan: Annotated[Path, typer.Argument(help="YAML file: data, networks, methods, seeds.")],
    output: Annotated[
        Path, typer.Option(help="Folder for weights, results, tables and figures.")
    ] = Path("art-lfr-comparison"),
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plan lie.")] = Path(),
    only: Annotated[str, typer.Option(help="Run the methods whose name contains this.")] = "",
    names: Annotated[str, typer.Option(help="Do the comparisons whose name contains this.")] = "",
    known: Annotated[
        Path | None,
        typer.Option(help="Folder of earlier NAME.json files: what they hold is not repeated."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Cores for each run; times are of one core.")] = 1,
    tables: Annotated[
        bool, typer.Option("--tables", help="Train nothing; write what is finished.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train methods side by side and tabulate accuracy, flatness and time.

    Runs that are finished are not repeated; a killed one goes on after its last epoch. Start the
    command again beside itself to use more cores: each run is done by one of the processes.
    Each comparison gets NAME.json, NAME.md, NAME.tex and, with matplotlib, NAME.png in --output.

    [bold]Example plan:[/bold]

    {name: mine, data: digits, model: digits-cnn, eps: 0.1, epochs: 30, seeds: [0, 1],
     methods: [{name: AT, kind: pgd}, {name: TRADES, kind: trades}, {name: LFR, kind: lfr}]}

    [bold]Example:[/bold]  art-lfr compare plan.yaml --output results
    """
    import torch
    from filelock import FileLock

    from art_lfr.cli import inputs
    from art_lfr.comparison.plan import read_plan
    from art_lfr.comparison.results import Results, table, to_markdown, write_report
    from art_lfr.comparison.runner import run_all, take_known
    from art_lfr.core.arguments import check_integer

    check_integer("--threads", threads, low=1)
    chosen = [comparison for comparison in read_plan(plan) if names in comparison.name]
    if not chosen:
        raise UsageError(f"--names is {names!r}; allowed: a part of a name in {str(plan)!r}")
    for name, folder in (("--known", known), ("--data-dir", data_dir)):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{name} is {str(folder)!r}; allowed: a folder")
    shared = output / "trainings"
    shared.mkdir(parents=True, exist_ok=True)
    # Known runs and tables are the same files, under the same temporary names, for every process
    # that shares the folder.
    lock = FileLock(shared / "lock")
    printed: dict[str, object] = {}
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for comparison in chosen:
            if known is not None:
                with lock:
                    taken = take_known(comparison, known, output)
                if taken:
                    typer.echo(f"{comparison.name}: {taken} runs taken from {known}", err=True)
            if not tables:
                run_all(
                    comparison,
                    output,
                    factory=lambda name, seed, classes: inputs.load_model(
                        name, None, seed, classes
                    ),
                    data_dir=data_dir,
                    only=only,
                    tell=lambda line: typer.echo(line, err=True),
                )
            with lock:
                results = Results.read(comparison, output)
                if results.runs:
                    write_report(results, output)
            if not results.runs:
                typer.echo(f"{comparison.name}: no finished run", err=True)
            elif as_json:
                printed[comparison.name] = table(results).to_dict(orient="records")
            else:
                typer.echo(to_markdown(results))
    finally:
        torch.set_num_threads(threads_before)
    if as_json:
        inputs.show_json(printed)
