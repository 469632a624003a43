"""Bad option values that hypothesis makes up: exit status 2, one line that names the option."""

from __future__ import annotations

import contextlib
import io
import re
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from art_lfr.cli import app, main
from art_lfr.models import digits_cnn

VALUES = 200
# Any text is right for these, or they are where something is written to.
FREE = {"only", "output", "numbers", "state_dir", "checkpoint_dir", "save_adversarial", "name"}
texts = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=6)
words = texts.filter(lambda text: not text.startswith("-") and text.strip(" ,"))
BAD: dict[type, st.SearchStrategy[str]] = {
    float: st.one_of(
        words.filter(lambda text: not re.match(r"\s*[+\d.]|\s*(inf|nan)", text)),
        st.sampled_from(["nan", "inf", "-inf", "1e999", ""]),
        st.floats(max_value=-1e-9, allow_infinity=False).map(str),
    ),
    int: st.one_of(
        words.filter(lambda text: not re.match(r"\s*[+\d]", text)),
        st.sampled_from(["1.5", "nan", "", "1e3"]),
        st.integers(max_value=-1).map(str),
    ),
    str: words.map(lambda text: f"{text}?").filter(lambda text: "," not in text),
    Path: words.map(lambda text: f"missing/{text}".replace("\\", "/")),
}
COMMANDS = {command.callback.__name__: command.callback for command in app.registered_commands}
# What the command takes, and need not look at for what is asked of it here.
UNUSED = {("plot", "--attacks")}
BASE = {
    "train": [],
    "tune": ["--minutes", "0.01"],
    "evaluate": ["--weights", "a.pt"],
    "masking": ["--weights", "a.pt"],
    "flatness": ["--weights", "a.pt"],
    "check": ["--weights", "a.pt"],
    "compare": ["plan.yaml"],
    "plot": ["flatness", "--weights", "a.pt"],
    "demo": [],
}
PLAN = {"name": "mine", "data": "digits", "model": "digits-cnn", "eps": 0.1, "images": [0, 8]}
METHODS = {"methods": [{"name": "LFR", "kind": "lfr"}]}


def options(command: str) -> dict[str, type]:
    """Names of the command's options that take a value, and the types of the values."""
    found = {}
    for name, hint in typing.get_type_hints(COMMANDS[command], include_extras=True).items():
        # Before 3.11 a hint with the default None comes as an Optional of what was written.
        if (inside := typing.get_args(hint)) and typing.get_origin(inside[0]) is typing.Annotated:
            hint = inside[0]
        if typing.get_origin(hint) is not typing.Annotated or name in FREE:
            continue
        plain, info = typing.get_args(hint)
        for kind in (plain, *typing.get_args(plain)):  # Optional[float]
            if kind in BAD and type(info).__name__ == "OptionInfo":
                found[f"--{name.replace('_', '-')}"] = kind
    return {name: kind for name, kind in found.items() if (command, name) not in UNUSED}


def test_no_command_is_left_out():
    assert set(BASE) == set(COMMANDS)
    assert sum(len(options(command)) for command in COMMANDS) > 60


@pytest.mark.parametrize("command", BASE)
def test_commands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(digits_cnn().state_dict(), "a.pt")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN | METHODS))
    before = set(tmp_path.iterdir())
    kinds = options(command)

    @settings(
        max_examples=-(-VALUES // len(BASE)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(st.data())
    def refused(draw: Any) -> None:
        option = draw.draw(st.sampled_from(sorted(kinds)))
        value = draw.draw(BAD[kinds[option]])
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            status = main([command, *BASE[command], f"{option}={value}"])
        lines = printed.getvalue().splitlines()
        assert (status, len(lines)) == (2, 1), f"{option}={value!r}: {status}, {lines}"
        # Errors of the library name its parameter: --max-iter as max_iter.
        name = option.strip("-").replace("-", "_")
        assert option in lines[0] or name in lines[0], f"{option}={value!r}: {lines[0]}"
        assert set(tmp_path.iterdir()) == before, f"{option}={value!r}"

    refused()
