"""Signs of gradient masking: `masking_report`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from art_lfr.art.adapter import BoundsChoice
from art_lfr.attacks.target import make_target, unharmed
from art_lfr.core.arguments import Array, check_integer, check_number
from art_lfr.core.geometry import parse_norm
from art_lfr.errors import UsageError
from art_lfr.masking.checks import CHECKS, Check
from art_lfr.masking.evidence import gather_evidence

# With fewer, one sample is more than the thresholds of the checks.
FEWEST_SAMPLES = 20


@dataclass(frozen=True)
class MaskingReport:
    """Checks for gradient masking, each with its figure and verdict.

    A verdict is "pass", "warn", "fail", or "not run". A report without a "fail" is no proof of
    robustness: it says that the usual signs of masking were not found.
    """

    eps: float
    norm: str
    images: int
    checks: tuple[Check, ...]

    @property
    def masked(self) -> bool:
        """Whether any check failed: do not trust gradient-based accuracies of this model."""
        return any(check.verdict == "fail" for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        """The check of that name; KeyError with the names that there are."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check {name!r}; there are {', '.join(c.name for c in self.checks)}")

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return {
            "eps": self.eps,
            "norm": self.norm,
            "images": self.images,
            "masked": self.masked,
            "checks": [vars(check) for check in self.checks],
        }

    def to_markdown(self) -> str:
        """The checks as a table in Markdown, the verdict below."""
        return f"{self._table('github')}\n\n{self._verdict()}"

    def __str__(self) -> str:
        return f"{self._table('simple')}\n{self._verdict()}"

    def _table(self, style: str) -> str:
        from tabulate import tabulate

        cells = [[check.verdict, check.name, check.found] for check in self.checks]
        table: str = tabulate(cells, ["", "check", "found"], style, maxcolwidths=[None, 26, 40])
        return table

    def _verdict(self) -> str:
        failed = [check.name for check in self.checks if check.verdict == "fail"]
        warned = [check.name for check in self.checks if check.verdict == "warn"]
        where = f"{self.images} images, eps {self.eps:g}, norm {self.norm}"
        if failed:
            return f"Gradient masking is likely ({', '.join(failed)}); {where}."
        if warned:
            return f"No strong sign of gradient masking; look at: {', '.join(warned)}; {where}."
        return f"No sign of gradient masking; {where}."


def masking_report(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: float,
    norm: float | str = math.inf,
    bounds: BoundsChoice = "auto",
    surrogate: object = None,
    batch_size: int = 256,
    seed: int = 0,
) -> MaskingReport:
    """Look for signs that gradients mislead the attacks, so that accuracies under them lie.

    Penalties on the input gradient, as LFR has, are the classic way to fool gradient-based attacks
    without being robust. The checks are those of Athalye et al. 2018 ("Obfuscated Gradients Give a
    False Sense of Security"), Carlini et al. 2019 ("On Evaluating Adversarial Robustness") and
    Pintor et al. 2022 ("Indicators of Attack Failure"), and AutoAttack's own flags. Between
    "pass" and "fail" lie a few points of accuracy, given with each check. 100 to 500 images are
    enough; the longest parts are 200 steps of PGD and 1,000 queries of Square.

    Args:
        model: A module that maps (N, ...) to logits, or an ART `PyTorchClassifier`.
        x: Inputs, shape (N, ...), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows.
        eps: Radius of the ball, > 0, in raw units.
        norm: p of the ball: np.inf, 2 or 1.
        bounds: Valid inputs (low, high), finite.
        surrogate: A model trained without a defence on the same task, for the transfer check;
            None: that check is not run.
        batch_size: Samples at a time.
        seed: Seed of every attack.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
    """
    check_number("eps", eps, low_allowed=False)
    p = parse_norm(norm)
    check_integer("batch_size", batch_size, low=1)
    check_integer("seed", seed, low=0)
    keywords: dict[str, Any] = {"p": p, "bounds": bounds, "batch_size": batch_size, "seed": seed}
    target = make_target(model, x, y, eps=float(eps), **keywords)
    other = None
    if surrogate is not None:
        other = make_target(surrogate, x, y, eps=float(eps), name="surrogate", **keywords)
    if not math.isfinite(float((target.ball.box.high - target.ball.box.low).max())):
        raise UsageError(
            f"bounds is {bounds!r}; allowed: finite bounds, as eps is raised until it covers them"
        )
    with unharmed(target.module, target.device):
        clean = target.correct(target.x, target.y)
        if int(clean.sum()) < FEWEST_SAMPLES:
            raise UsageError(
                f"x has {int(clean.sum())} samples that the model classifies correctly; allowed: "
                f"at least {FEWEST_SAMPLES}, as the checks compare accuracies"
            )
        evidence = gather_evidence(target, other, clean)
        checks = [check(evidence) for check in CHECKS]
    return MaskingReport(
        eps=float(eps),
        norm="inf" if p == math.inf else f"{p:g}",
        images=len(target.x),
        checks=tuple(checks),
    )
