"""`import robustbench` works, an original `autoattack` wins, and what is missing is named."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from lfr_testing import printed_by_python

try:
    import art_lfr.robustbench
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported: {error}", allow_module_level=True)

import pyautoattack
import robustbench

from art_lfr.robustbench.standin import finder

ALIASES = ("autopgd_base", "fab_base", "fab_projections", "fab_pt", "square")


def told_by(script, *arguments, first_on_path=None):
    """What a script prints, as JSON; its Python looks into `first_on_path` first."""
    folders = [first_on_path and str(first_on_path), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    script = Path(__file__).parent / "scripts" / script
    printed = printed_by_python("-W", "ignore", script, *arguments, environment=environment)
    return json.loads(printed.splitlines()[-1])


def test_robustbench_works():
    assert robustbench.eval.AutoAttack is importlib.import_module("autoattack").AutoAttack
    names = "helper_files/imagenet_test_image_ids.txt"
    path = robustbench.loaders.pkg_resources.resource_filename("robustbench.loaders", names)
    assert len(Path(path).read_text().splitlines()) == 5000
    # Other libraries do not get the stand-in, which has one function only.
    seen = sys.modules.get("pkg_resources")
    assert not isinstance(getattr(seen, "__loader__", None), finder.ResourcesLoader)
    spec = importlib.util.find_spec("pkg_resources")
    assert spec is None or spec.has_location
    (ours,) = (i for i, f in enumerate(sys.meta_path) if isinstance(f, finder.StandInFinder))
    assert sys.meta_path.index(PathFinder) < ours


def test_specs_are_in_order():
    before = sys.meta_path[:]
    importlib.reload(art_lfr.robustbench)
    assert sys.meta_path == before  # installed once
    spec = importlib.util.find_spec("autoattack")
    assert (spec.name, spec.parent, spec.submodule_search_locations) == (
        "autoattack",
        "autoattack",
        [],
    )
    for name in (*ALIASES, "autoattack", "state", "checks", "other_utils"):
        module = importlib.import_module(f"autoattack.{name}")
        spec = module.__spec__
        assert importlib.util.find_spec(spec.name) is spec
        assert module is getattr(sys.modules["autoattack"], name)
        assert (spec.name, spec.parent) == (f"autoattack.{name}", "autoattack")
        assert isinstance(spec.loader, finder.StandInLoader)
        assert importlib.reload(module) is module
    for name in ALIASES:
        theirs = importlib.import_module(f"pyautoattack.{name}")
        assert theirs.__name__ == theirs.__spec__.name == f"pyautoattack.{name}"
    autoattack = importlib.reload(sys.modules["autoattack"])
    assert autoattack.AutoAttack is autoattack.autoattack.AutoAttack
    assert autoattack.square.SquareAttack is pyautoattack.square.SquareAttack
    with pytest.raises(ModuleNotFoundError, match=r"autoattack\.fab_tf"):
        importlib.import_module("autoattack.fab_tf")
    assert not hasattr(autoattack, "torch")  # only what the original has


@pytest.mark.slow
def test_an_original_wins(tmp_path):
    package = tmp_path / "autoattack"
    package.mkdir()
    (package / "__init__.py").write_text("class AutoAttack: pass\n")
    (package / "state.py").write_text("class EvaluationState: pass\n")
    found = told_by("whose_autoattack.py", first_on_path=tmp_path)
    # And a module that an old original lacks is not taken from the stand-in.
    assert found == [str(package / "__init__.py"), "autoattack", "autoattack", False]


@pytest.mark.parametrize("name", ["robustbench", "pyautoattack", "torchvision"])
def test_what_is_not_installed_is_named(name):
    told = told_by("import_robustbench.py", name)
    assert told == f'{name} is not installed; install it with: pip install "art-lfr[robustbench]"'


def test_a_torchvision_that_does_not_fit_torch(tmp_path):
    (tmp_path / "torchvision").mkdir()
    error = "operator torchvision::nms does not exist"
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise RuntimeError({error!r})\n")
    told = told_by("import_robustbench.py", first_on_path=tmp_path)
    assert told.startswith(f"torchvision cannot be imported: {error}. It must be built for")
    assert "from PyPI" in told


def test_a_folder_that_hides_the_package(tmp_path):
    (tmp_path / "autoattack").mkdir()
    told = told_by("import_robustbench.py", first_on_path=tmp_path)
    assert told.startswith(f"{tmp_path / 'autoattack'} hides the package autoattack")


def test_files_that_torchattacks_has_overwritten_are_named(monkeypatch, tmp_path):
    """Its wheel ships an old robustbench, which pip writes over the real one."""
    finder.check_not_overwritten()
    changed = tmp_path / "utils.py"
    changed.write_text("# an old copy")

    class File(importlib.metadata.PackagePath):
        hash = importlib.metadata.FileHash("sha256=" + "A" * 43)

        def locate(self):
            return changed

    class Distribution:
        version = "1.1.1"
        files = (File("robustbench/utils.py"),)

    monkeypatch.setattr(finder, "_distribution", lambda name: Distribution())
    with pytest.raises(ImportError, match=r"overwritten.*--force-reinstall --no-deps"):
        finder.import_robustbench()


def test_the_old_copy_alone_is_named(monkeypatch):
    monkeypatch.setattr(finder, "_distribution", lambda name: None)
    monkeypatch.setattr(finder, "_shipped_by_torchattacks", lambda: {"robustbench"})
    with pytest.raises(ImportError, match=r'old copy.*pip install "art-lfr\[robustbench\]"'):
        finder.import_robustbench()
