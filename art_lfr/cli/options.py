"""The options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional, get_args, get_type_hints

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
EpsStepOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Length of an ascent step; default: a multiple of eps / steps."),
]
BatchSizeOption = Annotated[int, typer.Option(help="Samples in a batch.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]


def with_options_of(kind: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command that takes `**settings`: each keyword of the TypedDict is an option.

    Its second annotation is the help. What is not given is None, or False where it is a flag: see
    `given_ones`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(command).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        for name, hint in get_type_hints(kind, include_extras=True).items():
            value, text = get_args(hint)
            (value, *_) = get_args(value) or (value,)  # the first of a union
            flag = f"--{name.replace('_', '-')}"
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=False if value is bool else None,
                    annotation=Annotated[bool, typer.Option(flag, help=text)]
                    if value is bool
                    else Annotated[Optional[value], typer.Option(help=text)],  # noqa: UP045
                )
            )
        vars(command)["__signature__"] = inspect.Signature(parameters)
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def given_ones(settings: dict[str, Any]) -> dict[str, Any]:
    """The options that were given: for the others the defaults of the trainer count."""
    return {name: v for name, v in settings.items() if v is not None and v is not False}
