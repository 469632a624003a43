"""The options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

Model = Annotated[
    str | None,
    typer.Option(
        help="digits-cnn (8x8), small-cnn, paper-cnn (28x28), narrow-resnet, resnet-20, "
        "preact-resnet-18 (colour), or module.path:factory, a callable that returns a "
        "torch.nn.Module; the current directory can be imported from. Default: what --weights say, "
        "else digits-cnn."
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="A .safetensors file of art-lfr train, which says what it is; or a state dict written "
        "by torch.save, or a checkpoint with one in it under state_dict, model or net."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="digits; mnist, fashion-mnist, svhn, cifar10, cifar100 (torchvision, kept in "
        "$ART_LFR_DATA or ~/.cache/art-lfr); a folder with train/CLASS/ and test/CLASS/; or a .npz "
        "file with x_train, y_train (and x_test, y_test, x_validation, y_validation). uint8 images "
        "are scaled to \\[0, 1]. Default: what --weights say, else digits."
    ),
]
Split = Annotated[str, typer.Option(help="test, validation or train.")]
Eps = Annotated[
    float | None,
    typer.Option(
        help="Radius of the ball, in units of the input; default: what --weights say, else 0.1."
    ),
]
Norm = Annotated[
    str | None,
    typer.Option(help="Norm of the ball: inf, 2 or 1; default: what --weights say, else inf."),
]
Estimator = Annotated[
    str, typer.Option(help="finite-difference, or exact (double back-propagation).")
]
MaxIter = Annotated[int, typer.Option(help="Ascent steps.")]
LearningRate = Annotated[float, typer.Option(help="Peak of the one-cycle learning rate.")]
BatchSize = Annotated[int, typer.Option(help="Samples in a batch.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def with_options_of(kind: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command that takes `**settings`: each keyword of the TypedDict is an option.

    Its second annotation is the help. What is not set is None, or False where it is a flag: see
    `without_missing`.
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
                    else Annotated[value | None, typer.Option(help=text)],
                )
            )
        vars(command)["__signature__"] = inspect.Signature(parameters)
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def without_missing(settings: dict[str, Any]) -> dict[str, Any]:
    """The options that the user set; the trainer has the defaults of the others."""
    return {name: v for name, v in settings.items() if v is not None and v is not False}


def names_in(listed: str) -> list[str]:
    """The names in a text with commas between them."""
    return [name.strip() for name in listed.split(",") if name.strip()]
