"""What a comparison runs: methods x data splits x seeds, read from one YAML file.

Lengths of a method (`eps`, `lam`, `radius`) are multiples of the eps of the comparison, `step` is a
multiple of the method's eps / steps, so that a file reads the same for every eps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from art_lfr.core.arguments import check_choice, check_integer, check_number
from art_lfr.core.geometry import parse_norm
from art_lfr.core.settings import DEFAULTS
from art_lfr.errors import UsageError
from art_lfr.evaluation.presets import NAMES
from art_lfr.storage.records import digest

ATTACKS = ("PGD-40", "APGD-CE", "APGD-T", "Square")
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
    | {"attack_steps", "autocast", "renew_every", "warm_start"},
}
# Settings that must be above 0, and settings that may be 0.
_POSITIVE = ("lr", "step", "radius", "max_grad_norm")
_NOT_NEGATIVE = ("eps", "lam", "warmup", "beta", "gamma", "weight_decay", "weight_perturbation")


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
        renew_every: For LFR methods that do not set it; None: the trainer's default.
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
    renew_every: int | None = None

    def __post_init__(self) -> None:
        check_number("eps", self.eps, low_allowed=False)
        parse_norm(self.norm)
        check_choice("part", self.part, ("test", "validation"))
        check_integer("validation", self.validation, low=1 if self.part == "validation" else 0)
        check_integer("epochs", self.epochs, low=1)
        check_integer("batch_size", self.batch_size, low=1)
        check_number("lr", self.lr, low_allowed=False)
        check_integer("masking_images", self.masking_images, low=0)
        check_integer("snapshots", self.snapshots, low=1, optional=True)
        check_integer("renew_every", self.renew_every, low=1, optional=True)
        if len(self.images) != 2:
            raise UsageError(f"images is {list(self.images)}; allowed: two, the first and last + 1")
        for attack in self.attacks:
            check_choice("attacks", attack, NAMES)
        if self.data != "digits" and self.splits != (0,):
            raise UsageError(
                f"splits is {list(self.splits)} with data {self.data!r}; allowed: [0], as only "
                "digits has others"
            )
        if not self.methods or not self.seeds or not self.splits:
            raise UsageError(f"{self.name}: methods, seeds and splits must not be empty")
        names = [str(method.get("name")) for method in self.methods]
        if len(set(names)) < len(names):
            raise UsageError(f"{self.name}: methods are named {names}; allowed: each name once")
        for method in self.methods:
            check_choice("kind", method.get("kind"), tuple(KINDS))
            unknown = set(method) - _COMMON - KINDS[method["kind"]]
            if unknown or "name" not in method:
                raise UsageError(
                    f"{self.name}: method {method.get('name')!r} has the settings "
                    f"{sorted(unknown)}; allowed for kind {method['kind']!r}: "
                    f"{sorted(_COMMON | KINDS[method['kind']])}"
                )
            try:
                _check_values(method)
            except (ValueError, TypeError) as error:
                raise UsageError(f"{self.name}: method {method['name']!r}: {error}") from error
            if method.get("warm_start") and method.get("flip", self.flip):
                raise UsageError(
                    f"{self.name}: method {method['name']!r} has warm_start with flip; allowed: "
                    "one of the two"
                )
            seeds = method.get("seeds", self.seeds)
            if not isinstance(seeds, list | tuple) or not seeds or set(seeds) - set(self.seeds):
                raise UsageError(
                    f"{self.name}: method {method['name']!r} has the seeds {seeds!r}; allowed: a "
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
                    settings = {**common, **self._ascent(method), **method}
                    # A slow method may have fewer seeds.
                    if seed in settings.pop("seeds", self.seeds):
                        yield Run(self, settings.pop("name"), seed, split, settings)

    def _ascent(self, method: Mapping[str, Any]) -> dict[str, int]:
        """How often LFR's ascent renews its gradient, where the method does not set it.

        1 is left out of the settings, because the keys of the first published runs lack it.
        """
        if method["kind"] != "lfr" or method.get("estimator") == "exact":
            return {}
        renew = self.renew_every or DEFAULTS[parse_norm(self.norm)].renew_every
        return {} if renew == 1 else {"renew_every": renew}


@dataclass(frozen=True)
class Run:
    """One training of one method, and what identifies it."""

    comparison: Comparison
    method: str
    seed: int
    split: int
    settings: dict[str, Any]

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


def _check_values(method: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError for numbers out of range; the trainers check the others."""
    for name in ("epochs", "batch_size"):
        check_integer(name, method.get(name, 1), low=1)
    check_integer("steps", method.get("steps", 1), low=0 if method["kind"] == "lfr" else 1)
    for name in (*_POSITIVE, *_NOT_NEGATIVE):
        value = method.get(name)
        check_number(name, value, low_allowed=name in _NOT_NEGATIVE, optional=True)


def read_plan(path: Path) -> list[Comparison]:
    """The comparisons of a YAML file: a list, or one.

    Raises FileNotFoundError, or ValueError naming what is wrong.
    """
    import yaml

    if not path.is_file():
        raise FileNotFoundError(f"plan {str(path)!r} is no file")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UsageError(f"plan {str(path)!r} is no YAML: {error}") from error
    entries = content if isinstance(content, list) else [content]
    known = {f.name for f in fields(Comparison)}
    comparisons = []
    for entry in entries:
        if not isinstance(entry, dict) or NEEDED - set(entry):
            raise UsageError(
                f"plan {str(path)!r} has the entry {entry!r:.200}; allowed: a mapping with at "
                "least name, data, model, eps and methods"
            )
        if unknown := set(entry) - known:
            raise UsageError(
                f"{entry['name']}: unknown settings {sorted(unknown)}; allowed: {sorted(known)}"
            )
        tuples = ("methods", "images", "splits", "seeds", "attacks")
        settings: dict[str, Any] = {k: tuple(v) if k in tuples else v for k, v in entry.items()}
        comparisons.append(Comparison(**settings))
    names = [comparison.name for comparison in comparisons]
    if len(set(names)) < len(names):
        raise UsageError(f"plan {str(path)!r} names {names}; allowed: each name once")
    return comparisons
