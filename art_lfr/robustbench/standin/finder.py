"""Modules that RobustBench imports and PyPI lacks, for where nothing else has them."""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from art_lfr.core.imports import require
from art_lfr.errors import MissingLibraryError

STANDIN = "art_lfr.robustbench.standin"
# What each module of the original package holds: the names of these modules, or one object of a
# module after a colon; the last one wins.
SOURCES: dict[str, tuple[str, ...]] = {
    "autoattack": (f"{STANDIN}.autoattack:AutoAttack",),
    "autoattack.autoattack": (f"{STANDIN}.autoattack:AutoAttack",),
    "autoattack.state": (f"{STANDIN}.autoattack:EvaluationState",),
    "autoattack.checks": ("pyautoattack.checks", f"{STANDIN}.autoattack:check_dynamic"),
    "autoattack.other_utils": ("pyautoattack.other_utils", f"{STANDIN}.autoattack:Logger"),
    **{
        f"autoattack.{name}": (f"pyautoattack.{name}",)
        for name in ("autopgd_base", "fab_base", "fab_projections", "fab_pt", "square")
    },
}
LOADERS = "robustbench.loaders"


class StandInLoader(Loader):
    """Fills a module with the public names of others, which stay as they are."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module: again from the start where it is reloaded."""
        for name in SOURCES[module.__name__]:
            path, _, attribute = name.partition(":")
            source = importlib.import_module(path)
            public = [name for name in vars(source) if not name.startswith("__")]
            names = [attribute] if attribute else getattr(source, "__all__", public)
            vars(module).update({name: getattr(source, name) for name in names})
        if module.__name__ == "autoattack":  # whose parts are there at once, as in the original
            for name in SOURCES:
                importlib.import_module(name)


class ResourcesLoader(Loader):
    """Fills `pkg_resources` with the one function that RobustBench calls."""

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module."""
        vars(module)["resource_filename"] = resource_filename


class StandInFinder(MetaPathFinder):
    """Finds the stand-ins. Appended to `sys.meta_path`, it is asked after all others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a stand-in, or None."""
        if name == "pkg_resources" and _loaders_are_being_imported():
            return ModuleSpec(name, ResourcesLoader())
        if name not in SOURCES:
            return None
        loader = getattr(sys.modules.get("autoattack"), "__loader__", None)
        if name != "autoattack" and not isinstance(loader, StandInLoader):
            return None  # an original that is too old to have this module
        return ModuleSpec(name, StandInLoader(), is_package=name == "autoattack")


def check_not_hidden() -> None:
    """Raise ImportError where a folder without code hides the package.

    Python takes any folder named `autoattack` beside a program for a package.
    """
    if "autoattack" in sys.modules:
        return
    spec = importlib.util.find_spec("autoattack")
    if spec is not None and not spec.has_location and not isinstance(spec.loader, StandInLoader):
        folders = ", ".join(map(str, spec.submodule_search_locations or ()))
        raise MissingLibraryError(
            f"{folders} hides the package autoattack; allowed: a folder of another name, or a "
            "program that is started elsewhere"
        )


def check_not_overwritten() -> None:
    """Raise ImportError where another package has put its files over RobustBench's.

    The wheel of torchattacks 3.5 ships an old copy of RobustBench under the same name: which files
    are there depends on which of the two was installed last.
    """
    distribution = _distribution("robustbench")
    for file in (distribution.files if distribution is not None else None) or ():
        if str(file) != "robustbench/utils.py" or file.hash is None:
            continue
        digest = hashlib.new(file.hash.mode, Path(str(file.locate())).read_bytes()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            raise MissingLibraryError(
                "the files of robustbench were overwritten, as an old copy in the wheel of "
                "torchattacks does; fix it with: pip install --force-reinstall --no-deps "
                f"robustbench=={distribution.version if distribution else ''}"
            )


def _shipped_by_torchattacks() -> set[str]:
    """The top-level packages in the wheel of torchattacks."""
    distribution = _distribution("torchattacks")
    files = None if distribution is None else distribution.files
    return {file.parts[0] for file in files or ()}


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def import_robustbench() -> None:
    """Install the finder and import RobustBench.

    Raises ImportError where something is not installed, and where torchvision does not fit torch,
    with torchvision's own words.
    """
    for name in ("pyautoattack", "torchvision", "robustbench"):
        if importlib.util.find_spec(name) is None:
            require(name, "robustbench")
    check_not_hidden()
    try:
        require("torchvision", "robustbench")
    except (RuntimeError, OSError, AttributeError) as error:
        raise MissingLibraryError(
            f"torchvision cannot be imported: {error}. It must be built for the torch that is "
            f"installed ({importlib.metadata.version('torch')}): take both from PyPI, or both from "
            "the same index of download.pytorch.org"
        ) from error
    check_not_overwritten()
    if _distribution("robustbench") is None and "robustbench" in _shipped_by_torchattacks():
        raise MissingLibraryError(
            "robustbench is not installed, only the old copy of it that torchattacks ships; "
            'install it with: pip install "art-lfr[robustbench]"'
        )
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())
    try:
        require("robustbench", "robustbench")
    finally:
        resources = sys.modules.get("pkg_resources")
        if isinstance(getattr(resources, "__loader__", None), ResourcesLoader):
            # RobustBench keeps its reference. Others would miss the rest of the module.
            del sys.modules["pkg_resources"]


def resource_filename(module: str, resource: str) -> str:
    """The path of a file that a package ships, relative to the directory of its module."""
    file = sys.modules[module].__file__ or ""
    return os.path.join(os.path.dirname(file), *resource.split("/"))


def _loaders_are_being_imported() -> bool:
    """Whether RobustBench's loaders are at their imports, and so who asks for `pkg_resources`."""
    loaders = sys.modules.get(LOADERS)
    return loaders is not None and not hasattr(loaders, "CustomImageFolder")
