"""The commands that look at a network: evaluate, masking, flatness and check."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from art_lfr.cli import known, options
from art_lfr.core import progress
from art_lfr.core.arguments import check_choice
from art_lfr.core.names import METRICS, find_name
from art_lfr.core.settings import ESTIMATORS


def evaluate(
    model: options.Model = None,
    weights: options.Weights = None,
    data: options.Data = None,
    split: options.Split = "test",
    images: Annotated[
        int | None, typer.Option(help="Number of images, the first ones; default: all.")
    ] = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    attacks: Annotated[
        str,
        typer.Option(
            help="Presets (quick, paper, autoattack) and attacks (FGSM, PGD, PGD-40, MI-PGD, JSMA, "
            "DDN-L2, pointwise, APGD-CE, APGD-T, Square, AutoAttack), with commas between."
        ),
    ] = "quick",
    metrics: Annotated[
        str, typer.Option(help="clever_u, loss_sensitivity, or both with a comma.")
    ] = "",
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="Write the result here: .json, .md, .tex or .csv.")
    ] = None,
    save_adversarial: Annotated[
        Path | None, typer.Option(help="Write the adversarial examples to this .npz file.")
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Keep finished attacks here; the same command goes on from there."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Attack a network and print its accuracy, the worst case and the local flatness.

    Each row has its number of images and its 95 % interval.
    A figure to publish needs AutoAttack: --attacks autoattack.

    [bold]Examples:[/bold]

    art-lfr evaluate --weights robust.safetensors

    art-lfr evaluate --weights robust.safetensors --attacks autoattack --images 200

    art-lfr evaluate --model my_nets:make --weights robust.pt --data my.npz \\
        --eps 0.03 --attacks autoattack --output table.tex

    accelerate launch --multi_gpu --num_processes 2 -m art_lfr evaluate \\
        --weights robust.safetensors
    """
    options.check_output(output, (".json", ".md", ".tex", ".csv"))
    options.check_output(save_adversarial, (".npz",), "--save-adversarial")
    chosen = known.judged(
        data,
        weights,
        split=split,
        images=images,
        seed=seed,
        model=model,
        eps=eps,
        norm=norm,
        batch_size=batch_size,
    )
    named = options.attacks_in(attacks)
    measured = [find_name("--metrics", name, METRICS) for name in options.names_in(metrics)]
    progress.loading(f"torch, ART and {chosen.recipe.data}")
    from art_lfr.cli import inputs
    from art_lfr.core.processes import Processes
    from art_lfr.evaluation.run import evaluate as run
    from art_lfr.models import NetworkInfo

    processes = Processes()  # before the network: it has the GPU of this process
    network, _, x, y, bounds, lines = inputs.judged(chosen, split, images)
    replaced = save_adversarial is not None and save_adversarial.exists()
    evaluation = run(
        network,
        x,
        y,
        eps=chosen.recipe.eps,
        norm=chosen.recipe.norm,
        attacks=named,
        bounds=bounds,
        batch_size=batch_size,
        seed=seed,
        metrics=measured,
        save_adversarial=save_adversarial,
        state_dir=state_dir,
        verbose=True,
        # Once all arguments are checked, and before any result.
        callback=lambda row: inputs.tell(*lines) if row.name == "clean" else None,
    )
    if not processes.main:
        return
    if weights is not None:
        said = chosen.info or NetworkInfo()
        found = {"file": weights.name, "eps": said.eps, "norm": said.norm, "data": said.data}
        evaluation = replace(evaluation, weights=found)
    typer.echo(evaluation.to_json() if as_json else str(evaluation))
    forms = {
        ".json": evaluation.to_json,
        ".md": evaluation.to_markdown,
        ".tex": evaluation.to_latex,
        ".csv": lambda: evaluation.to_frame().to_csv(index=False),
    }
    inputs.write_output(output, forms)
    if save_adversarial is not None:
        inputs.tell(inputs.written(save_adversarial, replaced))


def masking(
    model: options.Model = None,
    weights: options.Weights = None,
    data: options.Data = None,
    split: options.Split = "test",
    images: Annotated[int, typer.Option(help="Number of images, the first ones.")] = 200,
    eps: options.Eps = None,
    norm: options.Norm = None,
    surrogate: Annotated[
        Path | None,
        typer.Option(
            help="Weights of the same network, trained without a defence, for the transfer check."
        ),
    ] = None,
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="Write the report to this .json or .md file.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Look for signs that gradients mislead the attacks, and accuracies lie.

    The exit status is 1 where gradient masking is likely, 2 where too few
    images are right to judge, and 0 otherwise.

    [bold]Examples:[/bold]

    art-lfr masking --weights robust.safetensors

    art-lfr masking --weights robust.safetensors \\
        --surrogate standard.safetensors --output masking.md
    """
    options.check_output(output, (".json", ".md"))
    chosen = known.judged(
        data,
        weights,
        split=split,
        images=images,
        seed=seed,
        model=model,
        eps=eps,
        norm=norm,
        batch_size=batch_size,
    )
    options.check_file("--surrogate", surrogate)
    progress.loading(f"torch, ART and {chosen.recipe.data}")
    from art_lfr.cli import inputs
    from art_lfr.masking.report import masking_report

    network, loaded, x, y, bounds, lines = inputs.judged(chosen, split, images)
    undefended = None
    if surrogate is not None:
        undefended = inputs.other_model(chosen, surrogate, loaded, "--surrogate")
    report = masking_report(
        network,
        x,
        y,
        eps=chosen.recipe.eps,
        norm=chosen.recipe.norm,
        bounds=bounds,
        surrogate=undefended,
        batch_size=batch_size,
        seed=seed,
        verbose=True,
    )
    if weights is not None:
        report = replace(report, weights=weights.name)
    inputs.tell(*lines)
    plain = json.dumps(report.to_dict(), indent=1) + "\n"
    typer.echo(plain if as_json else str(report), nl=not as_json)
    inputs.write_output(output, {".json": lambda: plain, ".md": report.to_markdown})
    if report.masked or not report.judged:
        raise typer.Exit(1 if report.masked else 2)


def flatness(
    model: options.Model = None,
    weights: options.Weights = None,
    data: options.Data = None,
    split: options.Split = "test",
    eps: options.Eps = None,
    norm: options.Norm = None,
    steps: Annotated[int, typer.Option(help="Ascent steps.")] = 20,
    estimator: options.Estimator = "finite-difference",
    batch_size: options.BatchSize = 256,
    seed: options.Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="Write one value per sample to this .csv or .json file.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure the local flatness: the largest gradient norm of the loss in each ball.

    Prints mean, median and 95th percentile; small is flat.
    Each value is a lower bound, found by projected ascent.

    [bold]Examples:[/bold]

    art-lfr flatness --weights robust.safetensors

    art-lfr flatness --model my_nets:make --data my.npz --output flatness.csv
    """
    options.check_output(output, options.TABLES)
    chosen = known.judged(
        data,
        weights,
        split=split,
        seed=seed,
        model=model,
        eps=eps,
        norm=norm,
        batch_size=batch_size,
    )
    check_choice("--estimator", estimator, ESTIMATORS)
    progress.loading(f"torch and {chosen.recipe.data}")
    import pandas

    from art_lfr.cli import inputs
    from art_lfr.core.progress import passes_of
    from art_lfr.core.tables import Table
    from art_lfr.evaluation.results import finite_or_none, summary
    from art_lfr.measure import local_flatness

    network, images, x, y, bounds, lines = inputs.judged(chosen, split, None)
    with passes_of(network, "local flatness", shown=True):
        values = local_flatness(
            network,
            x,
            y,
            eps=chosen.recipe.eps,
            norm=chosen.recipe.norm,
            steps=steps,
            estimator=estimator,
            bounds=bounds,
            batch_size=batch_size,
            seed=seed,
        )
    inputs.tell(*lines)
    summaries = summary(values)
    if as_json:
        ball = {"eps": chosen.recipe.eps, "norm": chosen.recipe.norm}
        plain = {name: finite_or_none(value) for name, value in summaries.items()}
        about = {"data": images.name, "split": split, **ball}
        inputs.show_json({**about, "samples": len(values), **plain})
    else:
        where = f"eps {chosen.recipe.eps:g}, norm {chosen.recipe.norm}"
        title = f"Local flatness: {images.name} ({split}), {where}"
        header = ["samples", "mean", "median", "95th percentile"]
        row = [str(len(values)), *(f"{value:.4g}" for value in summaries.values())]
        unit = "Nats per unit of x: ||grad l||_q, with 1/p + 1/q = 1 for norm p; small is flat."
        inputs.show(Table(header, [row], [unit], title, left=()))
    columns = {"index": range(len(values)), "label": y, "flatness": values}
    inputs.write_output(output, inputs.table_forms(pandas.DataFrame(columns)))


def check(
    model: options.Model = None,
    weights: options.Weights = None,
    data: options.Data = None,
    estimator: options.Estimator = "finite-difference",
    batch_size: options.BatchSize = 128,
    as_json: options.Json = False,
) -> None:
    """Name each layer and setting that does not go with LFR, and how to fix it.

    Tries the network on a few training images.
    The exit status is 1 where an error was found, and 0 otherwise.

    [bold]Examples:[/bold]

    art-lfr check --model my_nets:make --data my.npz

    art-lfr check --model my_nets:make --estimator exact --batch-size 8
    """
    ball: dict[str, Any] = {"ball": False, "eps": 0.0}  # it has none
    chosen = known.settings_of(data, weights, model=model, batch_size=batch_size, **ball)
    check_choice("--estimator", estimator, ESTIMATORS)
    progress.loading(f"torch and {chosen.recipe.data}")
    from rich.markup import escape

    from art_lfr.check import check_model
    from art_lfr.check.model import PROBED
    from art_lfr.cli import inputs

    images = inputs.load_data(chosen.recipe.data)
    findings = check_model(
        inputs.load_model(chosen.recipe.model, weights, classes=inputs.outputs_for(images)),
        images.x_train,
        images.y_train,
        estimator=estimator,
        batch_size=batch_size,
        bounds=images.bounds,
    )
    inputs.tell(*chosen.lines)
    if as_json:
        inputs.show_json([asdict(finding) for finding in findings])
    elif not findings:
        inputs.show(
            "Nothing found: the model and the data go with LFR.\n"
            f"Tried: values and labels of {len(images.x_train)} training images; layers, gradients "
            f"and random draws on {min(PROBED, len(images.x_train))} of them,\n"
            f"for --estimator {estimator} and --batch-size {batch_size}."
        )
    for finding in () if as_json else findings:
        style = "red" if finding.severity == "error" else "yellow"
        inputs.show(f"[bold {style}]{finding.severity}[/] [bold]{escape(finding.layer)}[/]")
        inputs.show(f"  {escape(finding.problem)}\n  [dim]fix:[/] {escape(finding.fix)}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)
