"""Each example runs as a user would run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str) -> str:
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_art_pipeline():
    found = {
        name: float(rate)
        for name, rate in re.findall(r"^([\w-]+): ([\d.]+) %", run("art_pipeline.py"), re.MULTILINE)
    }
    assert found["clean"] > 93
    assert found["PGD-40"] > 70


@pytest.mark.slow
def test_plain_pytorch():
    output = run("plain_pytorch.py")
    flatness = re.search(r"mean local flatness of 450 test images: ([\d.]+)", output)
    assert flatness is not None
    assert float(flatness[1]) < 20  # that of the standard network is above 50
