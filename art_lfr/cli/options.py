"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# Optional, not `| None`: Python 3.10 evaluates these for Typer.
ModelOption = Annotated[
    str,
    typer.Option(
        help="digits-cnn (8x8), small-cnn, paper-cnn (28x28), narrow-resnet, resnet-20, "
        "preact-resnet-18 (colour), or module.path:factory, a callable that returns a "
        "torch.nn.Module; the current directory can be imported from."
    ),
]
WeightsOption = Annotated[
    Optional[Path], typer.Option(help="A state dict written by torch.save.")  # noqa: UP045
]
DataOption = Annotated[
    str,
    typer.Option(
        help="digits; mnist, fashion-mnist, svhn, cifar10, cifar100 (torchvision, kept in "
        "$ART_LFR_DATA or ~/.cache/art-lfr); a folder with train/CLASS/ and test/CLASS/; or a .npz "
        "file with x_train, y_train (and x_test, y_test, x_validation, y_validation). uint8 images "
        "are scaled to \\[0, 1]."
    ),
]
EpsOption = Annotated[float, typer.Option(help="Radius of the ball, in units of the input.")]
NormOption = Annotated[str, typer.Option(help="Norm of the ball: inf, 2 or 1.")]
EstimatorOption = Annotated[
    str, typer.Option(help="finite-difference, or exact (double back-propagation).")
]
PenaltyOption = Annotated[
    str, typer.Option(help='"lfr", "lfr-held" or another one of art_lfr.penalties.')
]
RadiusOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Finite-difference radius; default: a multiple of eps."),
]
EpsStepOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Length of an ascent step; default: a multiple of eps / steps."),
]
BatchSizeOption = Annotated[int, typer.Option(help="Samples in a batch.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
LamOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Weight of the penalty; default: a multiple of eps."),
]
