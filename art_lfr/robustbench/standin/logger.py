"""The logger of the original AutoAttack: lines on the screen, and in a file."""

from __future__ import annotations

from pathlib import Path

from art_lfr.errors import UsageError

__all__ = ["Logger"]


class Screen:
    """What the original prints and does not log."""

    def info(self, message: str) -> None:
        """Print a line."""
        # Flushed, so that a redirected run of hours can be watched.
        print(message, flush=True)


class Logger:
    """Prints lines, and appends them to the file `log_path` where there is one.

    Raises ValueError where the file cannot be.
    """

    def __init__(self, log_path: str | Path | None) -> None:
        if log_path is not None and (Path(log_path).is_dir() or not Path(log_path).parent.is_dir()):
            raise UsageError(
                f"log_path is {str(log_path)!r}; allowed: a file in a directory that exists"
            )
        self.log_path = log_path

    def log(self, str_to_log: str) -> None:
        """Print a line and append it to the file."""
        Screen().info(str_to_log)
        if self.log_path is not None:
            with open(self.log_path, "a", encoding="utf-8") as file:
                file.write(str_to_log + "\n")

    def warning(self, message: str) -> None:
        """Log a line that begins with "Warning: ", as pyautoattack's attacks ask for."""
        self.log(f"Warning: {message}")
