"""What a comparison runs: methods x data splits x seeds, read from one YAML file.

Lengths of a method (`eps`, `lam`, `radius`) are multiples of the eps of the comparison, `step` is a
multiple of the method's eps / steps, so that a file reads the same for every eps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from art_lfr.core.arguments import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_seed,
    check_type,
    nearest,
)
from art_lfr.core.names import ATTACK_NAMES, parse_norm
from art_lfr.errors import UsageError
from art_lfr.storage.files import check_file_name, read_bytes
from art_lfr.storage.records import digest

ATTACKS = ("PGD-40", "APGD-CE", "APGD-T", "Square")
# The folder of all trainings, beside those of the comparisons.
RUNS = "trainings"
# Larger counts, files and plans are mistakes, or made to use up the machine.
MOST, MOST_VALUES, LONGEST_PLAN = 10**9, 10**5, 10**6
NEEDED = {"name", "data", "model", "eps", "methods"}
# The settings that every kind of method understands.
_COMMON = {
    *("name", "kind", "model", "seeds", "epochs", "batch_size", "flip"),
    *("lr", "weight_decay", "max_grad_norm"),
}
_BALL = {"eps", "steps", "step", "warmup"}
KINDS: dict[str, set[str]] = {
    "standard": set(),
    "pgd": _BALL | {"ratio"},
    "trades": _BALL | {"beta"},
    "fbf": {"eps"},
    "awp": _BALL | {"gamma"},
    "lfr": _BALL
    | {"lam", "radius", "estimator", "batch_norm", "penalty", "weight_perturbation"}
    | {"attack_steps", "autocast", "held_epochs", "precision", "renew_every"}
    | {"crop", "warm_start"},
}
# Settings that must be above 0, and settings that may be 0.
_POSITIVE = ("lr", "step", "radius", "max_grad_norm")
_NOT_NEGATIVE = (
    *("eps", "lam", "warmup", "beta", "gamma", "weight_decay", "weight_perturbation"),
    "held_epochs",
)


@dataclass(frozen=True)
class Comparison:
    """One table: methods trained and judged in the same way, on every split and seed.

    Attributes:
        name: Names its files.
        data: As `--data` of the other commands.
        model: As `--model`.
        eps: Radius of the ball, > 0, in raw units.
        methods: Each has a `name`, a `kind` and its settings, which override the common ones.
        title: Heads the table.
        norm: inf, 2 or 1.
        epochs, batch_size, lr, weight_decay: SGD with momentum and a one-cycle learning rate.
        flip: Mirror training images at random.
        train: Number of training images, the first ones; None: all.
        validation: Number of training images, the last ones, that are reserved.
        part: "test", or "validation" to choose settings.
        images: The judged images, first and last + 1, of that part.
        splits: Seeds of the shuffled split, for digits; others have one.
        seeds: Seeds of weights, batches and start noise.
        attacks: Attacks of the worst case.
        masking_images: Images of the masking report; 0: none is made.
        snapshots: The weights are kept and judged after every n-th epoch; None: after the last.
        renew_every, held_epochs: For LFR methods that do not set them. `held_epochs` None: the
            trainer's default.
        max_grad_norm: The clip of every method that does not set its own; None: no clip.
    """

    name: str
    data: str
    model: str
    eps: float
    methods: tuple[Mapping[str, Any], ...]
    title: str = ""
    norm: float | str = "inf"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 0.0
    flip: bool = False
    train: int | None = None
    validation: int = 0
    part: str = "test"
    images: tuple[int, int | None] = (0, None)
    splits: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    attacks: tuple[str, ...] = ATTACKS
    masking_images: int = 0
    snapshots: int | None = None
    renew_every: int = 1
    held_epochs: float | None = None
    max_grad_norm: float | None = 1.0

    def __post_init__(self) -> None:
        check_file_name("name", self.name)
        if self.name == RUNS:
            raise UsageError(f"name is {RUNS!r}; allowed: another, as the weights of all lie there")
        for key in ("data", "model"):
            _check_text(key, getattr(self, key))
        check_type("title", self.title, str, "a text")
        check_number("eps", self.eps, low_allowed=False)
        parse_norm(self.norm)
        check_choice("part", self.part, ("test", "validation"))
        _check_count("validation", self.validation, low=1 if self.part == "validation" else 0)
        for key in ("epochs", "batch_size", "renew_every"):
            _check_count(key, getattr(self, key))
        for key in ("train", "snapshots"):
            _check_count(key, getattr(self, key), optional=True)
        _check_count("masking_images", self.masking_images, low=0)
        check_number("lr", self.lr, low_allowed=False)
        check_number("weight_decay", self.weight_decay)
        check_number("held_epochs", self.held_epochs, optional=True)
        check_number("max_grad_norm", self.max_grad_norm, low_allowed=False, optional=True)
        check_flag("flip", self.flip)
        if len(self.images) != 2:
            raise UsageError(f"images is {list(self.images)}; allowed: two, the first and last + 1")
        _check_count("images", self.images[0], low=0)
        _check_count("images", self.images[1], low=0, optional=True)
        if self.images[1] is not None and self.images[1] <= self.images[0]:
            raise UsageError(
                f"images is {list(self.images)}; allowed: two, the first and last + 1, of which "
                "the second is larger"
            )
        for key in ("methods", "seeds", "splits", "attacks"):
            if not getattr(self, key):
                raise UsageError(f"{key} is empty; allowed: at least one")
        for attack in self.attacks:
            check_choice("attacks", attack, ATTACK_NAMES)
        for key in ("seeds", "splits"):
            for seed in getattr(self, key):
                check_seed(key, seed)
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise UsageError(f"{key} is {list(getattr(self, key))}; allowed: each number once")
        if self.data != "digits" and self.splits != (0,):
            raise UsageError(
                f"splits is {list(self.splits)} with data {self.data!r}; allowed: [0], as only "
                "digits has others"
            )
        for method in self.methods:
            check_type("methods", method, Mapping, "mappings with a name, a kind and settings")
            self._check_method(method)
        names = [str(method["name"]) for method in self.methods]
        if len({name.casefold() for name in names}) < len(names):
            raise UsageError(f"methods are named {names}; allowed: each name once")

    def _check_method(self, method: Mapping[str, Any]) -> None:
        try:
            check_choice("kind", method.get("kind"), tuple(KINDS))
            _refuse_unknown(method, _COMMON | KINDS[method["kind"]], f"kind {method['kind']!r}")
            check_file_name("name", method.get("name"))
            _check_values(method)
        except (ValueError, TypeError) as error:
            raise UsageError(f"method {method.get('name')!r:.100}: {error}") from error
        seeds = method.get("seeds", self.seeds)
        if (
            not isinstance(seeds, list | tuple)
            or not seeds
            or not all(s in self.seeds for s in seeds)
        ):
            raise UsageError(
                f"method {method['name']!r} has the seeds {seeds!r:.100}; allowed: a "
                f"list of some of {list(self.seeds)}"
            )

    def runs(self) -> Iterator[Run]:
        """Every run, seed by seed: the runs of the first seeds alone are a fair comparison."""
        common = {
            name: getattr(self, name)
            for name in ("model", "epochs", "batch_size", "lr", "weight_decay", "flip")
        }
        for seed in self.seeds:
            for split in self.splits:
                for method in self.methods:
                    settings = {**common, **self._defaults(method), **method}
                    # A slow method may have fewer seeds.
                    if seed in settings.pop("seeds", self.seeds):
                        yield Run(self, settings.pop("name"), seed, split, settings)

    def _defaults(self, method: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that the method itself need not have: the clip, and LFR's own.

        What earlier versions did (no clip, the gradient renewed in each step, nothing held) is left
        out, because the keys of the results that were published first lack it.
        """
        chosen: dict[str, Any] = {}
        if self.max_grad_norm is not None:
            chosen["max_grad_norm"] = self.max_grad_norm
        if method["kind"] != "lfr" or method.get("estimator") == "exact":
            return chosen
        held = method.get("warmup", 2.0) if self.held_epochs is None else self.held_epochs
        chosen |= {} if self.renew_every == 1 else {"renew_every": self.renew_every}
        return chosen | ({} if held == 0 else {"held_epochs": held})


@dataclass(frozen=True)
class Run:
    """One training of one method, and what identifies it."""

    comparison: Comparison
    method: str
    seed: int
    split: int
    settings: dict[str, Any]

    @property
    def about(self) -> str:
        """Which one it is, for a reader."""
        return f"{self.method}, seed {self.seed}, split {self.split}"

    @property
    def training_key(self) -> str:
        """A hash of all that shapes the weights."""
        c = self.comparison
        return digest(
            [
                *(c.data, c.eps, str(c.norm), c.train, c.validation, c.snapshots),
                *(self.seed, self.split, self.settings),
            ]
        )[:12]

    @property
    def key(self) -> str:
        """A hash of all that shapes the result."""
        c = self.comparison
        return digest([self.training_key, c.part, list(c.images), list(c.attacks)])[:12]

    @property
    def masking_key(self) -> str:
        """A hash of all that shapes the masking report."""
        c = self.comparison
        return digest([self.training_key, c.part, c.images[0], c.masking_images])[:12]


def _refuse_unknown(settings: Mapping[Any, Any], known: Collection[str], of: str) -> None:
    """Raise UsageError for settings that there are not, naming the nearest of the first."""
    if unknown := sorted(map(str, settings.keys() - set(known))):
        raise UsageError(
            f"unknown settings {unknown}; allowed for {of}: {sorted(known)}"
            f"{nearest(unknown[0], known)}"
        )


def _check_values(method: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError for bad values; the trainers check what goes with what."""
    for name in ("epochs", "batch_size", "attack_steps", "renew_every"):
        _check_count(name, method.get(name, 1))
    _check_count("crop", method.get("crop", 1))
    _check_count("steps", method.get("steps", 1), low=0 if method["kind"] == "lfr" else 1)
    for name in ("flip", "autocast", "warm_start"):
        check_flag(name, method.get(name, False))
    for name in ("model", "estimator", "batch_norm", "penalty", "precision"):
        _check_text(name, method.get(name, "-"))
    for name in (*_POSITIVE, *_NOT_NEGATIVE):
        value = method.get(name)
        check_number(name, value, low_allowed=name in _NOT_NEGATIVE, optional=True)


def _check_count(name: str, value: object, *, low: int = 1, optional: bool = False) -> None:
    check_integer(name, value, low=low, optional=optional)
    if isinstance(value, int) and value > MOST:
        raise UsageError(f"{name} is {value:.3g}; allowed: an integer from {low} to {MOST}")


def _check_text(name: str, value: object) -> None:
    check_type(name, value, str, "a text")
    if not str(value) or not str(value).isprintable():
        raise UsageError(f"{name} is {value!r:.100}; allowed: a text without control characters")


def _read_yaml(path: Path) -> Any:
    """The content of a YAML file; ValueError with the line where a key is there twice.

    PyYAML takes the last one. It also lets a few lines stand for any number of values.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(read_bytes(path, "the plan", LONGEST_PLAN))
        root = loader.get_single_node()
        if root is not None and _size(root, {}) > MOST_VALUES:
            raise UsageError(f"it stands for more than {MOST_VALUES} values")
        return None if root is None else loader.construct_document(root)
    # Numbers and dates of YAML that Python does not have are ValueErrors.
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise UsageError(f"the plan {str(path)!r} is no YAML of a plan: {error}") from error


def _size(node: Any, sizes: dict[int, int]) -> int:
    """How many values a node of YAML stands for; one that holds itself has too many."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = MOST_VALUES
    parts = [] if isinstance(node.value, str) else node.value
    keys: set[str] = set()
    count = 1
    for part in parts:
        if isinstance(part, tuple):
            key = part[0]
            if str(key.value) in keys:
                raise UsageError(
                    f"line {key.start_mark.line + 1} has the key {str(key.value)!r:.60} again; "
                    "allowed: each key once"
                )
            keys.add(str(key.value))
        children = part if isinstance(part, tuple) else (part,)
        count += sum(_size(child, sizes) for child in children)
    sizes[id(node)] = count
    return count


def read_plan(path: Path) -> list[Comparison]:
    """The comparisons of a YAML file: a list, or one.

    Raises FileNotFoundError, or ValueError naming what is wrong.
    """
    content = _read_yaml(path.expanduser())
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise UsageError(f"the plan {str(path)!r} is empty; allowed: at least one comparison")
    known = {f.name for f in fields(Comparison)}
    comparisons = []
    for entry in entries:
        if not isinstance(entry, dict) or NEEDED - set(entry):
            raise UsageError(
                f"the plan {str(path)!r} has the entry {entry!r:.200}; allowed: a mapping with at "
                "least name, data, model, eps and methods"
            )
        try:
            _refuse_unknown(entry, known, "a comparison")
            settings = dict(entry)
            for key in {"methods", "images", "splits", "seeds", "attacks"} & set(entry):
                check_type(key, entry[key], list, "a list")
                settings[key] = tuple(entry[key])
            comparisons.append(Comparison(**settings))
        except (ValueError, TypeError) as error:
            where = f"the plan {str(path)!r}, {entry['name']!r:.100}"
            raise UsageError(f"{where}: {error}") from error
    names = [comparison.name for comparison in comparisons]
    if len({name.casefold() for name in names}) < len(names):
        raise UsageError(f"the plan {str(path)!r} names {names}; allowed: each name once")
    return comparisons
