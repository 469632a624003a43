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


def test_nothing_is_drawn_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(3, 2)
    with progress.passes_of(model, "attack", shown=True):
        assert not model._forward_hooks
    progress.line("done")
    progress.line("hidden", shown=False)
    assert capsys.readouterr().err == "done\n"
