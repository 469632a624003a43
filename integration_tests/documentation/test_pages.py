"""The pages are short, complete, and say what the published results say."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import FunctionType, GenericAlias, ModuleType

import pytest
from lfr_testing import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
# Pages that a reader starts with: their tables are to be taken in at a glance.
FIRST = [page for page in PAGES if page.parent in (ROOT, DOCS)]
NUMBER = re.compile(r"[-+]?\d+\.\d+")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def cells(page: Path) -> list[str]:
    """Cells of the tables of a page."""
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    return [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row)]


def test_the_readme_is_read_to_its_end() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("page", FIRST, ids=name_of)
def test_no_cell_is_a_paragraph(page: Path) -> None:
    assert [cell for cell in cells(page) if len(cell.split()) > 12] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_have_titles_and_places(page: Path) -> None:
    for title, target in re.findall(r"(?<!!)\[([^]]+)\]\(([^)]+)\)", page.read_text()):
        assert not title.endswith((".md", ".ipynb")), f"{title!r} is a file, not a title"
        path, _, heading = target.partition("#")
        if "://" in path:
            continue
        linked = (page.parent / path).resolve() if path else page
        generated = path == "first_look.ipynb"  # made for the site from examples/
        assert linked.exists() or generated, f"{target} does not exist"
        if heading and linked.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", t).strip().lower().replace(" ", "-") for t in titles}
            assert heading in slugs


def script(folder: str, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / folder))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for module in (name, "plans"):
        sys.modules.pop(module, None)
    return importlib.import_module(name)


def test_the_page_of_evidence_follows_from_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = script("robustness", "evidence", monkeypatch)
    page = (DOCS / "results.md").read_text()
    assert evidence.renewed(page, evidence.tables()) == page
    # Of the text, each section has the numbers of its table and no others.
    for section in page.split("\n## ")[1:]:
        text = "\n".join(line for line in section.splitlines() if not line.startswith("|"))
        table = {
            n.lstrip("+-")
            for row in section.splitlines()
            if row.startswith("|")
            for n in NUMBER.findall(row)
        }
        said = {n.lstrip("+-") for n in NUMBER.findall(text.partition("\n")[2])}
        assert said <= table | differences(table), section.partition("\n")[0]


def differences(table: set[str]) -> set[str]:
    """What a sentence may say of two numbers: how far they are apart."""
    values = sorted(map(float, table))
    return {f"{b - a:.1f}" for a in values for b in values if b > a}


def test_the_table_of_the_front_follows_from_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    front = script("front", "front", monkeypatch)
    tasks = [front.read(c, ROOT / "benchmarks/front/results") for c in front.read_plan(front.PLAN)]
    page = (DOCS / "performance.md").read_text()
    table = front.shown([results for results in tasks if results.runs])
    assert front.renewed(page, {"front": table}) == page


def test_the_readme_shows_the_numbers_of_the_page_of_evidence() -> None:
    page = (DOCS / "results.md").read_text()
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("## How good it is")[2].partition("\nSo LFR")[0]
    numbers = [n for row in table.splitlines() if row.startswith("|") for n in row.split("|")[2:6]]
    found = [n for cell in numbers for n in NUMBER.findall(cell)]
    assert len(found) > 30
    assert [n for n in found if n not in NUMBER.findall(page)] == []


def test_what_the_text_says_of_speed_was_measured() -> None:
    measured = ROOT / "benchmarks" / "speed" / "measured"
    page = (DOCS / "performance.md").read_text()
    rows = {
        "LFR by default": "iteration, LFR, as by default",
        'LFR, `precision="bf16"`': "iteration, LFR, as by default, bf16",
        '`"lfr-held"`': "iteration, LFR held, as by default",
        "adversarial training here, two warm-started steps": (
            "iteration, adversarial training, as by default"
        ),
        "ART's `AdversarialTrainerMadryPGD`, ten steps": (
            "iteration, ART's AdversarialTrainerMadryPGD"
        ),
        "the published algorithm, ten steps": "iteration, as published",
    }
    tables = [
        json.loads((measured / f"{name}-default.json").read_text())
        for name in ("paper-cnn", "resnet-20")
    ]
    for label, task in rows.items():
        ratios = [f"{ratio(table, task):.2f}" for table in tables]
        assert f"| {label} | {' | '.join(ratios)} |" in page


def ratio(table: dict, task: str) -> float:
    tasks = table["tasks"]
    return tasks[task]["ms"] / tasks["iteration, PGD adversarial training"]["ms"]


# Modules whose every public name the reference has.
DOCUMENTED = (
    "art_lfr",
    "art_lfr.autoattack",
    "art_lfr.check",
    "art_lfr.data",
    "art_lfr.evaluation",
    "art_lfr.masking",
    "art_lfr.models",
    "art_lfr.penalties",
    "art_lfr.plots",
    "art_lfr.tuning",
)


def test_the_reference_has_every_public_module() -> None:
    page = (DOCS / "api.md").read_text()
    modules = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "art_lfr").rglob("__init__.py")
        if "__all__" in path.read_text()
    }
    named = set(re.findall(r"^\.\. automodule:: (\S+)\n   :members:$", page, re.MULTILINE))
    assert modules - named == {"art_lfr.cli"}  # which has a page of its own
    assert set(DOCUMENTED) <= named


@pytest.mark.parametrize("module", DOCUMENTED)
def test_every_public_name_has_a_docstring(module: str) -> None:
    """Sphinx leaves out what has none."""
    found = importlib.import_module(module)
    public = [(name, getattr(found, name)) for name in found.__all__]
    # An alias such as Callable[...] is a type to Python 3.10.
    named = [
        (n, v)
        for n, v in public
        if isinstance(v, type | FunctionType) and not isinstance(v, GenericAlias)
    ]
    assert named
    assert [n for n, v in named if not (v.__doc__ or "").strip()] == []


def test_every_command_is_on_its_page() -> None:
    from art_lfr.cli.app import COMMANDS

    page = (DOCS / "command-line.md").read_text()
    for command in COMMANDS:
        assert f"```{{command-help}} {command.__name__}\n```" in page
        assert f"| [{command.__name__}](#art-lfr-{command.__name__}) |" in page


def test_every_check_of_masking_is_explained() -> None:
    from art_lfr.masking.report import CHECK_NAMES

    page = (DOCS / "evaluation.md").read_text()
    assert [name for name in CHECK_NAMES if f"\n| {name} |" not in page] == []


def test_every_example_is_in_the_gallery() -> None:
    page = (DOCS / "examples.md").read_text()
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert scripts == set(re.findall(r"^\| \[`(\S+\.py)`\]\(\S+\) \|", page, re.MULTILINE))
