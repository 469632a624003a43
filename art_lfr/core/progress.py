"""Signs of life: on a terminal a bar that goes away again, in a file a line for what is done.

Torch is not imported: messages come before it too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from art_lfr.core.tables import terminal_width, wrapped

if TYPE_CHECKING:
    from torch import nn


def bar(about: str, *, shown: bool, **settings: Any) -> tqdm[Any]:
    """A bar on stderr, as wide as the window; without effect where stderr is no terminal."""
    on_terminal = shown and sys.stderr.isatty()
    return tqdm(desc=about, disable=not on_terminal, leave=False, dynamic_ncols=True, **settings)


def line(text: str, *, shown: bool = True) -> None:
    """A line on stderr that stays, above the bars that there are; a terminal's is wrapped."""
    if shown:
        if sys.stderr.isatty():
            text = wrapped(text, terminal_width(), indent="  ")
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def loading(what: str) -> None:
    """Say on a terminal that libraries and data are loaded, which takes seconds.

    Elsewhere nobody waits, and an error is the only line. Of several processes of a launcher the
    first one says it.
    """
    first = os.environ.get("RANK", "0") == "0"
    line(f"Loading {what} ...", shown=first and sys.stderr.isatty())


@contextmanager
def passing_lines(*, shown: bool) -> Iterator[Callable[[str], None]]:
    """Tells what is done where a table will repeat it: a terminal's line goes away at the end."""
    with bar("", shown=shown, bar_format="{desc}") as last:
        on_terminal, said = not last.disable, ""

        def tell(text: str) -> None:
            nonlocal said
            said = f"{said}, {text}" if said else text
            if on_terminal:  # what has room, the newest last
                last.set_description_str(said[1 - terminal_width() :])
            else:
                line(text, shown=shown)

        yield tell


@contextmanager
def alive(shown: tqdm[Any], model: object) -> Iterator[None]:
    """The clock of a bar goes on with the forward passes of a model, where it is a module."""
    from torch import nn

    if shown.disable or not isinstance(model, nn.Module):
        yield
        return
    last = [0.0]

    def refresh(*_: object) -> None:
        if (now := time.monotonic()) - last[0] > 0.5:
            last[0] = now
            shown.refresh()

    handle = model.register_forward_hook(refresh)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def passes_of(
    module: nn.Module, about: str, *, shown: bool, total: int | None = None
) -> Iterator[None]:
    """A bar that counts the forward passes of a module; `total`: at most so many."""
    with bar(about, shown=shown, total=total, unit=" passes") as counted:
        if counted.disable:
            yield
            return

        def count(*_: object) -> None:  # what a hook returns would be the output of the module
            counted.update()

        handle = module.register_forward_hook(count)
        try:
            yield
        finally:
            handle.remove()
