"""The command `art-lfr` and its subcommands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from art_lfr.cli.compare import compare
from art_lfr.cli.evaluate import evaluate
from art_lfr.cli.inspect import check, flatness
from art_lfr.cli.masking import masking
from art_lfr.cli.plot import plot
from art_lfr.cli.train import demo, train
from art_lfr.cli.tune import tune

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
        "Start with [bold]art-lfr demo[/bold]: two to three minutes, no download, no GPU."
    ),
)
for command in (demo, train, tune, evaluate, masking, flatness, compare, plot, check):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status: 0, 1 (failed), 2 (bad usage, one line on stderr), 130."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        # A command that starts itself in several processes passes on what it was given.
        status = app(args=given, prog_name="art-lfr", standalone_mode=False, obj=given)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except Exception as error:
        # Typer's own errors come from its copy of click in new versions, from click in old ones.
        if hasattr(error, "format_message"):
            return _fail(error.format_message(), 2)
        if type(error).__name__ == "TrainingError":
            return _fail(str(error), 1)
        raise
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    if line := " ".join(message.split()):
        print(f"art-lfr: error: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
