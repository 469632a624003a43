"""The notebook shows what its code does: its cells are run, and what they give is compared."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import math
import re
import struct
from typing import Any

import pytest
from lfr_testing import ROOT

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "first_look.ipynb"
FIGURE = re.compile(r"\d+\.\d+")
# torchattacks has SPSA; where it is not installed, the masking report does without.
OPTIONAL = re.compile(r", SPSA alone breaks \d+\.\d+ %")
Cell = dict[str, Any]


def code_cells() -> list[Cell]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if "outputs" in cell]


def run(cell: Cell, names: dict[str, Any]) -> tuple[str, object]:
    """What a cell prints, and the value of its last line where that is an expression."""
    lines = ["" if line.startswith("%") else line for line in "".join(cell["source"]).split("\n")]
    tree, value = ast.parse("\n".join(lines)), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, NOTEBOOK.name, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)
    return printed.getvalue(), value


def shown(cell: Cell) -> str:
    """The text that the notebook shows below a cell."""
    assert {o["name"] for o in cell["outputs"] if o["output_type"] == "stream"} <= {"stdout"}
    return "".join(
        line for o in cell["outputs"] if o["output_type"] == "stream" for line in o["text"]
    )


def agree(text: str, other: str) -> bool:
    """Whether words are the same, and figures nearly: to 7 per cent of the images, or by a share.

    The sums of another release of torch differ in the last bit, and after some epochs so do the
    networks, by what another seed would change.
    """
    text, other = OPTIONAL.sub("", text), OPTIONAL.sub("", other)
    shares = "%" in text or "per cent" in text
    near = {"rel_tol": 0.0, "abs_tol": 7.0} if shares else {"rel_tol": 0.15}
    figures = [[float(figure) for figure in FIGURE.findall(t)] for t in (text, other)]
    words = [FIGURE.sub("#", t).split() for t in (text, other)]
    return words[0] == words[1] and all(
        math.isclose(a, b, **near) for a, b in zip(*figures, strict=True)
    )


def test_it_gives_what_it_shows() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_cells():
        printed, value = run(cell, names)
        assert agree(printed, shown(cell)), f"{printed}\n\nin the notebook:\n\n{shown(cell)}"
        results = [o for o in cell["outputs"] if o["output_type"] != "stream"]
        assert len(results) == (value is not None)
        for result in results:  # a figure
            assert "".join(result["data"]["text/plain"]) == repr(value)
            png = base64.b64decode("".join(result["data"]["image/png"]))
            size = struct.unpack(">II", png[16:24])
            # Cut to what is drawn, with a margin.
            assert size == pytest.approx(value.get_size_inches() * 100, rel=0.05)
    # What its text says.
    assert not any(found.violated.any() for found in names["measured"].values())
    flatness = {name: found.flatness.max() for name, found in names["measured"].items()}
    assert flatness["LFR"] < flatness["standard"] / 2
    assert not names["report"].masked


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("PGD-40 98.0\n per cent", "PGD-40   91.5 per cent\n", True),
        ("PGD-40 98.0 per cent", "PGD-40 90.5 per cent", False),
        ("PGD-40 98.0 per cent", "PGD-20 98.0 per cent", False),
        ("PGD-40 98.0 %", "PGD-40 98.0 %, Square 60.0 %", False),
        ("Square 0.0 %", "Square 0.0 %, SPSA alone breaks 1.0 %", True),
        ("flatness 7.4", "flatness 6.5", True),
        ("flatness 7.4", "flatness 6.0", False),
    ],
)
def test_what_agrees(text: str, other: str, same: bool) -> None:
    assert agree(text, other) is agree(other, text) is same


def test_it_is_as_it_ran_and_small() -> None:
    """In one go from the top, with nothing of the machine in it."""
    assert [path.name for path in EXAMPLES.glob("*.ipynb")] == [NOTEBOOK.name]
    notebook = json.loads(NOTEBOOK.read_text())
    assert [cell["execution_count"] for cell in code_cells()] == [*range(1, len(code_cells()) + 1)]
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    outputs = [output for cell in code_cells() for output in cell["outputs"]]
    assert {o["output_type"] for o in outputs} == {"stream", "execute_result"}
    assert not re.search(r"seconds|/\w+/", "".join(map(shown, code_cells())))
    assert NOTEBOOK.stat().st_size < 100_000
    magic = [line for cell in code_cells() for line in cell["source"] if line.startswith("%")]
    assert magic == ["%matplotlib inline\n"]
