"""The commands that train: demo and train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast

import typer

from art_lfr.cli.options import (
    BatchSizeOption,
    DataOption,
    EpsOption,
    EpsStepOption,
    JsonOption,
    ModelOption,
    NormOption,
    PenaltyOption,
    SeedOption,
    WeightsOption,
    given_ones,
    with_options_of,
)
from art_lfr.core.keywords import TrainerKeywords

if TYPE_CHECKING:
    from rich.table import Table


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("art-lfr-demo"),
    seed: SeedOption = 0,
    epochs: Annotated[int, typer.Option(help="Epochs of both trainings.")] = 30,
) -> None:
    """Train a standard and an LFR classifier on digits, attack both, write a report.

    scikit-learn's digits at eps 0.1: two to three minutes on one core.
    Prints the accuracy clean, under PGD-40, APGD-T and Square, and in the worst case.
    The folder gets report.md, results.json and figures.

    [bold]Example:[/bold]  art-lfr demo --output my-report
    """
    from art_lfr.demo.run import run_demo

    run_demo(output, seed=seed, epochs=epochs)


@with_options_of(TrainerKeywords)
def train(
    model: ModelOption = "digits-cnn",
    data: DataOption = "digits",
    eps: EpsOption = 0.1,
    norm: NormOption = "inf",
    eps_step: EpsStepOption = None,
    max_iter: Annotated[int, typer.Option(help="Ascent steps.")] = 10,
    penalty: PenaltyOption = "lfr",
    epochs: Annotated[
        int, typer.Option(help="Epochs in all; a resumed run keeps to its own.")
    ] = 20,
    batch_size: BatchSizeOption = 128,
    lr: Annotated[float, typer.Option(help="Peak of the one-cycle learning rate.")] = 0.1,
    seed: SeedOption = 0,
    weights: WeightsOption = None,
    checkpoint_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Keep a checkpoint here after each epoch."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --checkpoint-dir.")
    ] = False,
    output: Annotated[
        Path, typer.Option(help="File for the trained weights (a state dict).")
    ] = Path("lfr-weights.pt"),
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Train a network with LFR and write its weights.

    SGD with momentum 0.9 and a one-cycle learning rate.
    Validation images, where there are any, are measured after each epoch.

    [bold]Examples:[/bold]

    art-lfr train --data digits --eps 0.1 --output robust.pt

    art-lfr train --model my_nets:make --data my.npz --eps 0.03 --epochs 50

    art-lfr train --checkpoint-dir run1 --resume

    accelerate launch --multi_gpu --num_processes 2 -m art_lfr train
    """
    import torch

    from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
    from art_lfr.cli.inputs import (
        load_data,
        load_model,
        make_classifier,
        outputs_for,
        show,
        show_json,
    )
    from art_lfr.core.arguments import check_integer, check_number
    from art_lfr.storage.files import check_output, write_atomically
    from art_lfr.training.options import check_fit_arguments
    from art_lfr.training.processes import Processes

    check_output(output, "--output", (".pt", ".pth"))
    check_number("--lr", lr, low_allowed=False)
    check_integer("--epochs", epochs, low=1)
    check_integer("--batch-size", batch_size, low=1)
    check_integer("--seed", seed, low=0)
    processes = Processes()  # before the classifier: it has the GPU of this process
    images = load_data(data)
    network = load_model(model, weights, seed, outputs_for(images))
    classifier = make_classifier(network, images, lr)
    trainer = AdversarialTrainerLFRPyTorch(
        classifier,
        norm=norm,
        eps=eps,
        eps_step=eps_step,
        max_iter=max_iter,
        penalty=penalty,
        seed=seed,
        **cast(TrainerKeywords, given_ones(settings)),
    )
    check_fit_arguments(epochs, checkpoint_dir, resume)
    validated = len(images.x_validation) > 0
    batches = -(-len(images.x_train) // batch_size)
    trainer.fit(
        images.x_train,
        images.y_train,
        validation_data=(images.x_validation, images.y_validation) if validated else None,
        batch_size=batch_size,
        nb_epochs=epochs,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(
            classifier.optimizer, lr, total_steps=epochs * batches + 1
        ),
        scheduler_interval="batch",
        checkpoint_dir=checkpoint_dir,
        resume=resume,
    )
    if not processes.main:
        return
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    write_atomically(output, lambda file: torch.save(state, file))
    if as_json:
        show_json(trainer.history)
    else:
        show(_record_table(trainer.history[-1]))
        show(f"Weights: {output}")


def _record_table(record: dict[str, float]) -> Table:
    """The last epoch, in words."""
    from rich.table import Table

    table = Table(title=f"Epoch {record['epoch']:.0f}", show_header=False)
    for name, value in record.items():
        if name != "epoch":
            shown = f"{100 * value:.1f} %" if name.endswith("accuracy") else f"{value:.4g}"
            table.add_row(name.replace("_", " "), shown)
    return table
