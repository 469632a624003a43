"""The workflow files cannot run here; their syntax and the environments they name are looked at."""

from __future__ import annotations

import configparser
import re
from importlib.metadata import metadata

import pytest
import yaml
from lfr_testing import ROOT

import art_lfr

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def environments() -> set[str]:
    """Names of the tox environments, with {a,b} written out."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    found = {name.strip() for name in tox["tox"]["env_list"].split(",")}
    for section in tox.sections():
        name = section.removeprefix("testenv:")
        head, brace, listed = name.partition("{")
        found |= {head + part for part in listed.rstrip("}").split(",")} if brace else {name}
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow(path):
    content = yaml.safe_load(path.read_text())
    assert set(content) == {"name", True, "permissions", "jobs"}  # YAML 1.1 reads `on` as true
    for job in content["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        assert set(job.get("needs", "").split()) <= set(content["jobs"])
    text = path.read_text()
    named = re.findall(r"tox run -e ([\w,-]+)", text) + re.findall(r'tox: "?([\w,-]+)', text)
    assert named
    assert set(",".join(named).split(",")) <= environments()


def test_there_are_two():
    assert [path.name for path in WORKFLOWS] == ["release.yml", "tests.yml"]


def test_each_extra_has_an_environment_and_a_job():
    extras = set(metadata("art-lfr").get_all("Provides-Extra")) - {"all"}
    ours = {f"extra-{extra}" for extra in extras}
    assert ours == {name for name in environments() if name.startswith("extra-")}
    jobs = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert ours == set(re.findall(r"extra-\w+", jobs))


def test_the_version_is_said_once_more():
    assert f"version: {art_lfr.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert 'attr = "art_lfr.__version__"' in (ROOT / "pyproject.toml").read_text()
