"""Bars: that they are shown on a terminal alone, and change nothing of what they count."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from torch import nn

from art_lfr.core import progress


def test_a_module_gives_the_same_while_its_passes_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    model, x = nn.Linear(3, 2), torch.rand(4, 3)
    expected = model(x)
    with progress.passes_of(model, "attack", shown=True, total=3):
        for _ in range(3):
            time.sleep(0.15)  # longer than between two drawings
            assert torch.equal(model(x), expected)
    assert "attack" in capsys.readouterr().err
    with progress.bar("attack", shown=True) as shown, progress.alive(shown, model):
        time.sleep(0.6)
        assert torch.equal(model(x), expected)
    assert not model._forward_hooks


def test_on_a_terminal_lines_are_wrapped_and_passing_ones_go_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    progress.line("a word that is longer than the window is wide")
    assert capsys.readouterr().err.splitlines() == [
        "a word that is",
        "  longer than the",
        "  window is wide",
    ]
    with progress.passing_lines(shown=True) as tell:
        tell("clean: 97.0 %")
        tell("PGD-40: 80.0 %")
    tell("worst case: 80.0 %")
    shown = capsys.readouterr().err
    assert "PGD-40: 80.0 %" in shown
    assert "worst case" not in shown
    assert "\n" not in shown
    assert shown.rpartition("\r")[0].endswith(" ")  # wiped out


def test_nothing_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(3, 2)
    with progress.passes_of(model, "attack", shown=True):
        assert not model._forward_hooks
    progress.line("done")
    progress.line("hidden", shown=False)
    progress.loading("torch")
    with progress.passing_lines(shown=True) as tell:
        tell("a row")
    tell("the last row")
    assert capsys.readouterr().err == "done\na row\nthe last row\n"
