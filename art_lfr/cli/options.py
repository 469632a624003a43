"""The options that several commands share, how their values are read, and what is checked at once.

Nothing here imports torch: a mistake is told before anything slow begins.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from art_lfr.core.names import MODELS, PENALTIES, find_attack
from art_lfr.data.recipes import NAMES
from art_lfr.errors import UsageError
from art_lfr.storage import files

# The groups of --help.
DATA, OBJECTIVE, TRAINING, OUTPUT = "Data and network", "Objective", "Training", "Output"
# How a table can be written.
TABLES = (".csv", ".json")


def read_number(text: object) -> float:
    """A number as people write it: 0.03, 1e-2, 8/255."""
    try:
        above, slash, below = str(text).partition("/")
        return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r}; allowed: a number such as 0.03 or 8/255") from None


def read_integer(text: object) -> int:
    """An integer."""
    try:
        return int(str(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r}; allowed: an integer") from None


def read_share(text: object) -> float:
    """A number of images, as an int, or a share of them in (0, 1)."""
    value = read_number(text)
    if str(text).isdecimal() or 0 < value < 1:
        return int(value) if value >= 1 else value
    raise typer.BadParameter(f"{text!r}; allowed: a number of images, or a share such as 0.1")


def read_device(text: object) -> str:
    """The name of a device."""
    if re.fullmatch(r"cpu|cuda(:\d+)?", str(text)):
        return str(text)
    raise typer.BadParameter(f"{text!r}; allowed: cpu, cuda, or a GPU by its number such as cuda:1")


def or_none(read: Callable[[object], Any]) -> Callable[[object], Any]:
    """A reader that takes "none" too, which `without_missing` turns into None."""
    return lambda text: NONE if str(text).lower() == NONE else read(text)


NONE = "none"
Model = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(MODELS)}, or module.path:factory, a callable that returns a "
        "torch.nn.Module; the current directory can be imported from. Default: what --weights say, "
        "else that of --data.",
        rich_help_panel=DATA,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="A .safetensors file of art-lfr train, which says what it is; or a state dict written "
        "by torch.save, or a checkpoint with one in it under state_dict, model or net.",
        rich_help_panel=DATA,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(NAMES)} (all but digits by torchvision, kept in $ART_LFR_DATA or "
        "~/.cache/art-lfr); a folder with train/CLASS/ and test/CLASS/; or a .npz file with "
        "x_train, y_train (and x_test, y_test, x_validation, y_validation; to judge a network, "
        "the part that is judged is enough). uint8 images are scaled to \\[0, 1]. Default: what "
        "--weights say, else digits. Options that are not given are those of its row in "
        "docs/defaults.md; files of your own need --model and --eps.",
        rich_help_panel=DATA,
    ),
]
Split = Annotated[str, typer.Option(help="test, validation or train.", rich_help_panel=DATA)]
Eps = Annotated[
    float | None,
    typer.Option(
        parser=read_number,
        metavar="NUMBER",
        help="Radius of the ball in units of the input, such as 8/255. Default: what --weights "
        "say, else that of --data.",
        rich_help_panel=OBJECTIVE,
    ),
]
Norm = Annotated[
    str | None,
    typer.Option(
        help="Norm of the ball: inf, 2 or 1; also Linf, L2, L1. Default: what --weights say, else "
        "inf.",
        rich_help_panel=OBJECTIVE,
    ),
]
Estimator = Annotated[
    str,
    typer.Option(
        help="finite-difference, or exact (double back-propagation).", rich_help_panel=OBJECTIVE
    ),
]
Penalty = Annotated[str, typer.Option(help=f"{', '.join(PENALTIES)}.", rich_help_panel=OBJECTIVE)]
MaxIter = Annotated[
    int | None,
    typer.Option(help="Ascent steps. Default: those of --data.", rich_help_panel=OBJECTIVE),
]
Device = Annotated[
    str | None,
    typer.Option(
        parser=read_device,
        metavar="DEVICE",
        help="cpu, cuda or cuda:1. Default: a GPU where there is one.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[int, typer.Option(help="Samples in a batch.")]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON instead of the table.", rich_help_panel=OUTPUT),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
TrainSeed = Annotated[
    int, typer.Option(help="Seed of everything random.", rich_help_panel=TRAINING)
]


def with_options_of(
    kinds: Mapping[type, str],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command that takes `**settings`: each keyword of the TypedDicts is an option too.

    Its second annotation is the help; the mapping has the group that it stands in. One that may
    be None is None where "none" is given. What is not given is left out by `without_missing`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        parameters = [
            parameter.replace(annotation=_annotated(hints[name]))
            for name, parameter in inspect.signature(command).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        for kind, panel in kinds.items():
            for name, hint in get_type_hints(kind, include_extras=True).items():
                parameters.append(
                    inspect.Parameter(
                        name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=None,
                        annotation=_option(name, hint, panel),
                    )
                )
        vars(command)["__signature__"] = inspect.Signature(parameters)
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _annotated(hint: Any) -> Any:
    """The hint as it was written: before 3.11 one with the default None comes as an Optional."""
    inside = get_args(hint)[:1]
    return inside[0] if inside and get_origin(inside[0]) is Annotated else hint


def _option(name: str, keyword: Any, panel: str) -> Any:
    """The annotation of the option of an annotated keyword."""
    hint, text = get_args(keyword)
    (value, *others) = get_args(hint) or (hint,)  # the first of a union
    flag = f"--{name.replace('_', '-')}"
    if value is bool:
        switch = f"{flag}/--no-{flag[2:]}"
        return Annotated[bool | None, typer.Option(switch, help=text, rich_help_panel=panel)]
    readers: dict[Any, Callable[[object], Any]] = {float: read_number, int: read_integer}
    read = readers.get(value, str)
    metavar = {float: "NUMBER", int: "INTEGER"}.get(value, "TEXT")
    if type(None) in others:
        read = or_none(read)
    return Annotated[
        value | None,
        typer.Option(flag, parser=read, metavar=metavar, help=text, rich_help_panel=panel),
    ]


def without_missing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the user set, "none" as None; the trainer has the defaults of the others."""
    given = {name: value for name, value in settings.items() if value is not None}
    return {name: None if value == NONE else value for name, value in given.items()}


def check_file(option: str, path: Path | None) -> None:
    """Raise where a file is named that is not there; None passes."""
    if path is not None and not path.expanduser().is_file():
        raise UsageError(f"{option} is {str(path)!r}, which is no file; allowed: one that is there")


def check_output(path: Path | None, endings: Sequence[str], option: str = "--output") -> None:
    """Raise before any work where the file cannot be written or has another ending; None passes."""
    if path is not None:
        files.check_output(path, option, endings)


def check_new(path: Path, replace: bool) -> None:
    """Raise where --output would replace a file, unless the user has said `replace`."""
    if not replace and files.as_path("--output", path).exists():
        raise UsageError(
            f"--output is {str(path)!r}, which is there already; allowed: another name, or --force "
            "to replace it"
        )


def attacks_in(listed: str) -> list[str]:
    """The attacks and presets in a text with commas between them."""
    return [find_attack(name, "--attacks") for name in names_in(listed)]


def names_in(listed: str) -> list[str]:
    """The names in a text with commas between them."""
    return [name.strip() for name in listed.split(",") if name.strip()]


def command_line(name: str, settings: dict[str, object]) -> str:
    """A command line, broken between options, to be pasted into a shell."""
    lines = [f"art-lfr {name}"]
    for option, value in settings.items():
        word = f"--{option.replace('_', '-')} {shlex.quote(str(value))}"
        if len(lines[-1]) + len(word) + len("  \\") > 80:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)
