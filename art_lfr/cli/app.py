"""The command `art-lfr` and its subcommands."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

import art_lfr
from art_lfr.cli.evaluate import check, evaluate, flatness, masking
from art_lfr.cli.plot import plot
from art_lfr.cli.studies import compare, tune
from art_lfr.cli.train import demo, train
from art_lfr.core import progress
from art_lfr.core.arguments import nearest
from art_lfr.errors import MissingLibraryError, TrainingError, UsageError, WrongTypeError

# Torch, ART and this package's modules are imported inside the commands: --help answers at once.

app = typer.Typer(
    name="art-lfr",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Robust training by local flatness regularization (LFR): the loss is kept flat in a ball "
        "of radius eps around each input, so that small changes of the input change little.\n\n"
        "Start with [bold]art-lfr demo[/bold]: two minutes, no download, no GPU."
    ),
)
COMMANDS = (demo, train, tune, evaluate, masking, flatness, compare, plot, check)
for command in COMMANDS:
    app.command()(command)


def _show_versions(wanted: bool) -> None:
    """Read, not imported, so that the answer comes at once."""
    if wanted:
        libraries = ("torch", "adversarial-robustness-toolbox")
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in libraries)
        typer.echo(f"art-lfr {art_lfr.__version__} ({versions})")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_versions,
            is_eager=True,
            help="Print the versions of art-lfr, torch and ART.",
        ),
    ] = False,
) -> None:
    pass


# An OSError is about a file that the user has named, or about the disk.
MISTAKES = (UsageError, WrongTypeError, MissingLibraryError, OSError)
# How a stopped command goes on, by its name, and the option that it needs for that.
GOES_ON = {
    "train": ("--checkpoint-dir", "the same command with --resume goes on after the last epoch"),
    "evaluate": ("--state-dir", "the same command goes on after the last finished attack"),
    "tune": ("", "the same command goes on after the last finished trial"),
    "compare": ("", "the same command goes on after the last epoch"),
}


class Terminated(BaseException):
    """SIGTERM has come. Not an Exception, so that no handler takes it for an ordinary failure."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that files and workers are left in order."""

    def stop(*_: object) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # only a main thread can have handlers
        yield
        return
    try:
        yield
    finally:
        if before is not None:  # None: it was not set from Python
            signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status.

    0; 1 (failed); 2 (a mistake of the user's, one line on stderr); 130 and 143 (SIGINT, SIGTERM).
    Any other error is a bug of this package, and passes through with its traceback.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    names = [command.__name__ for command in COMMANDS]
    if words and not words[0].startswith("-") and words[0] not in names:
        hint = nearest(words[0], names) or f"; allowed: {', '.join(names)}"
        return _fail(f"No such command {words[0]!r}{hint}", 2)
    try:
        with _terminable(), _warnings_told(words[0] if words else ""):
            status = app(args=words, prog_name="art-lfr", standalone_mode=False)
    except MISTAKES as error:
        return _fail(_with_options(str(error), words[0]), 2)
    except TrainingError as error:
        return _fail(_with_options(str(error), words[0]), 1)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except Terminated:
        status = 143
    except Exception as error:
        # Typer's own errors come from its copy of click in new versions, from click in old ones.
        if hasattr(error, "format_message"):
            message = error.format_message()
            if option := getattr(error, "option_name", ""):
                hint = nearest(option, getattr(error, "possibilities", None) or ())
                message = f"No such option {option}{hint}" if hint else message
            message = _about_extra(message, words)
            about = getattr(getattr(error, "param", None), "help", None)
            if about and message.startswith("Missing argument"):
                message = f"{message.rstrip('.')}; allowed: {about}"
            return _fail(message, 2)
        raise
    # Typer may have turned KeyboardInterrupt into its status.
    for number, word in ((130, "interrupted"), (143, "terminated")):
        if status == number:
            return _fail(f"{word}{_after_stopping(words)}", number)
    return status if isinstance(status, int) else 0


def _about_extra(message: str, words: Sequence[str]) -> str:
    """A message on words too many says which option does not take the first of them."""
    found = re.fullmatch(r"Got unexpected extra arguments? ?\(?s?\)? \((.*)\)", message)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    name = next((word for word in words if word in commands), None)
    if found is None or name is None:
        return message
    extra = next((w for w in words[1:] if f"{found[1]} ".startswith(f"{w} ")), found[1])
    flags = {
        name
        for parameter in commands[name].params
        if getattr(parameter, "is_flag", False)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    # The last one: an option's own value may be the same word.
    at = max((i for i, word in enumerate(words) if word == extra), default=0)
    before = words[at - 1] if at else ""
    if before not in flags:
        return f"{extra!r} belongs to no option; allowed: see `art-lfr {name} --help`"
    file = "; a file is named by --output" if before == "--json" else ""
    return f"{before} takes no value, but {extra!r} follows it; allowed: {before} alone{file}"


def _after_stopping(words: Sequence[str]) -> str:
    """What is kept of a stopped command, or what keeps it the next time."""
    option, goes_on = GOES_ON.get(words[0] if words else "", ("", ""))
    if option and option not in (word.partition("=")[0] for word in words):
        return f"; what was done is lost: next time give {option} FOLDER, and {goes_on}"
    return f"; {goes_on}" if goes_on else ""


@contextmanager
def _warnings_told(command: str) -> Iterator[None]:
    """Python's warnings as messages of the command, without the line of code they come from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: progress.line(
            f"art-lfr: warning: {' '.join(_with_options(str(message), command).split())}"
        )
        yield


def _with_options(message: str, name: str) -> str:
    """An error of the Python interface with the names that the command line has."""
    for command in COMMANDS:
        parameters = inspect.signature(command).parameters if command.__name__ == name else ()
        for parameter in parameters:
            flag = f"--{parameter.replace('_', '-')}"
            message = re.sub(rf"\b{parameter}=True\b", flag, message)
            message = re.sub(rf"\b{parameter}=False\b", f"--no-{flag[2:]}", message)
            # A single word may be one of the sentence, unless it begins it or its value follows.
            start, end = r"(?<![\w./'\"-])", r"(?=[ :;,.)])"
            if "_" not in parameter:
                message = re.sub(rf"\A{parameter}{end}", flag, message)
                end = r"(?= (?:\(now|is missing)\b)"
            message = re.sub(rf"{start}{parameter}{end}", flag, message)
    # A third of the epochs, say; not in names of files, which are quoted.
    message = re.sub(
        r"(?<=now | is |has |the )\d+\.\d{5,}", lambda long: f"{float(long[0]):.3g}", message
    )
    return message.replace(", or None", "").replace("(now None)", "(now none)")


def _fail(message: str, status: int) -> int:
    if line := " ".join(message.split()):
        progress.line(f"art-lfr: error: {line}")
    return status
