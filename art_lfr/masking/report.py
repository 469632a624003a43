"""Signs of gradient masking: `masking_report`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from art_lfr.art.module import BoundsChoice
from art_lfr.attacks.target import make_target, preserved
from art_lfr.core.arguments import Array
from art_lfr.core.modes import gradients_enabled
from art_lfr.core.tables import Shown, Table
from art_lfr.errors import UsageError
from art_lfr.masking.evidence import LONG_PGD, PGD, SHORT_PGD, Evidence, gather_evidence

# With fewer, one sample is more than the thresholds of the checks.
FEWEST_SAMPLES = 20


@dataclass(frozen=True)
class Check:
    """One check: its name, its verdict, and what it found in words.

    `figure` is in per cent: above `warn` the verdict is "warn", above `fail` "fail", else "pass";
    it is None where the verdict is "not run".
    """

    name: str
    verdict: str
    found: str
    figure: float | None = None
    warn: float | None = None
    fail: float | None = None


@dataclass(frozen=True)
class MaskingReport(Shown):
    """Checks for gradient masking, each with its figure and verdict.

    A verdict is "pass", "warn", "fail", or "not run". A report without a "fail" is no proof of
    robustness: it says that the usual signs of masking were not found. Of the `images` the model
    classifies `correct` without an attack: the figures are per cent of these. `weights` is the
    file that was judged, where one is known.
    """

    eps: float
    norm: str
    images: int
    correct: int
    checks: tuple[Check, ...]
    weights: str = ""

    @property
    def masked(self) -> bool:
        """Whether any check failed; then do not trust gradient-based accuracies of this model."""
        return any(check.verdict == "fail" for check in self.checks)

    @property
    def judged(self) -> bool:
        """Whether any check was run; with too few images that are right, none is."""
        return any(check.verdict != "not run" for check in self.checks)

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
            "correct": self.correct,
            **({"weights": self.weights} if self.weights else {}),
            "judged": self.judged,
            "masked": self.masked,
            "checks": [vars(check) for check in self.checks],
        }

    def shown(self) -> Table:
        """A row for each check, the verdict and what the figures count below."""
        # Without a judgement all say what the verdict says.
        cells = [[c.verdict, c.name, c.found if self.judged else ""] for c in self.checks]
        lines = [self._verdict()]
        if self.judged:
            lines.append(
                f"Figures are per cent of the {self.correct} of {self.images} images that are "
                f"right without an attack; `evaluate` shows per cent of all {self.images}."
            )
        lines += [f"Weights: {self.weights}"] if self.weights else []
        return Table(["", "check", "found"], cells, lines, left=(0, 1, 2))

    def _verdict(self) -> str:
        failed = [check.name for check in self.checks if check.verdict == "fail"]
        warned = [check.name for check in self.checks if check.verdict == "warn"]
        where = f"{self.images} images, eps {self.eps:g}, norm {self.norm}"
        if not self.judged:
            return f"Not judged: {self.checks[0].found}; {where}."
        if failed:
            return f"Gradient masking is likely ({', '.join(failed)}); {where}."
        if warned:
            return f"No strong sign of gradient masking; look at: {', '.join(warned)}; {where}."
        return f"No sign of gradient masking; {where}."


@gradients_enabled()
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
    verbose: bool = False,
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
        bounds: Valid inputs (low, high), finite. "auto": [0, 1], or a classifier's `clip_values`.
        surrogate: A model trained without a defence on the same task, for the transfer check;
            None: that check is not run.
        batch_size: Samples at a time.
        seed: Seed of every attack.
        verbose: Show on a terminal what is at work.

    With fewer than 20 images that the model classifies correctly, every check is "not run".

    Returns:
        A `MaskingReport`; print it. `report.masked` says whether a check fails, and
        `report["more steps are no weaker"]` is one of the checks, with its verdict and figure.

    Example::

        from art_lfr import masking_report

        report = masking_report(model, x, y, eps=0.1)
        if report.masked:
            print(report)

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
    """
    keywords: dict[str, Any] = {
        "eps": eps,
        "norm": norm,
        "bounds": bounds,
        "batch_size": batch_size,
        "seed": seed,
        "progress": verbose,
    }
    target = make_target(model, x, y, **keywords)
    other = None
    if surrogate is not None:
        other = make_target(surrogate, x, y, name="surrogate", **keywords)
    if not math.isfinite(float((target.ball.box.high - target.ball.box.low).max())):
        raise UsageError(
            f"bounds is {target.adapter.bounds!r}; allowed: finite bounds (of a classifier its "
            "clip_values), as eps is raised until it covers them"
        )
    with preserved(target.module, target.device):
        clean = target.correct(target.x, target.y)
        correct = int(clean.sum())
        if correct < FEWEST_SAMPLES:
            reason = (
                f"the model classifies {correct} of {len(clean)} images correctly, and "
                f"the checks compare accuracies: they need {FEWEST_SAMPLES}"
            )
            checks = tuple(Check(name, "not run", reason) for name in CHECK_NAMES)
        else:
            checks = judged(gather_evidence(target, other, clean))
    return MaskingReport(
        eps=target.ball.eps,
        norm=f"{target.ball.p:g}",
        images=len(target.x),
        correct=correct,
        checks=checks,
    )


# What a check finds: a figure in per cent of the samples that are correct without an attack (None
# where it is not run), and words.
Finding: TypeAlias = tuple[float | None, str]


def _per_cent(mask: Tensor) -> float:
    return 100 * float(mask.double().mean())


def single_step(e: Evidence) -> Finding:
    """Athalye et al.: iterative attacks are stronger than single-step ones, or gradients lie."""
    single, iterative = 100 - _per_cent(e.single_step), 100 - _per_cent(e.traces[PGD].broken)
    return iterative - single, f"FGSM leaves {single:.1f} %, PGD-{PGD} {iterative:.1f} %"


def black_box(e: Evidence) -> Finding:
    """Athalye et al.: what black-box attacks break, white-box attacks break too."""
    if not e.black_box:
        return None, "Square needs images (N, C, H, W)"
    extra = {key: _per_cent(broken & ~e.white_box) for key, broken in e.black_box.items()}
    texts = [f"{key} alone breaks {value:.1f} %" for key, value in extra.items()]
    return max(extra.values()), ", ".join(texts)


def random_noise(e: Evidence) -> Finding:
    """Athalye et al.: random search finds no example where gradients find none."""
    extra = _per_cent(e.noise & ~e.white_box)
    return extra, f"{extra:.1f} % fall to random points of the ball and to no gradient"


def unbounded(e: Evidence) -> Finding:
    """Athalye et al.: with no bound on the perturbation an attack always succeeds."""
    steps = [f"{eps:.3g}: {100 * left:.1f}" for eps, left in e.rising_eps.items()]
    return 100 * min(e.rising_eps.values()), f"% left at eps {', '.join(steps)}"


def more_steps(e: Evidence) -> Finding:
    """Carlini et al.: more iterations never make an attack weaker."""
    left = {steps: 100 - _per_cent(trace.broken) for steps, trace in e.traces.items()}
    texts = [f"PGD-{steps} leaves {value:.1f} %" for steps, value in left.items()]
    return max(left[PGD] - left[SHORT_PGD], left[LONG_PGD] - left[PGD]), ", ".join(texts)


def converged(e: Evidence) -> Finding:
    """Carlini et al.: an attack whose figure is reported has converged."""
    gain = _per_cent(e.traces[LONG_PGD].broken & ~e.traces[PGD].broken)
    return gain, f"PGD-{LONG_PGD} breaks {gain:.1f} % that PGD-{PGD} does not"


def other_loss(e: Evidence) -> Finding:
    """Croce & Hein: a loss that the scale of the logits does not change finds no more."""
    extra = _per_cent(e.apgd & ~e.traces[LONG_PGD].broken)
    return extra, f"APGD-T breaks {extra:.1f} % that PGD-{LONG_PGD} on the cross-entropy does not"


def transfer(e: Evidence) -> Finding:
    """Carlini et al.: examples for an undefended model find nothing that gradients miss."""
    if e.transfer is None:
        return None, "give a standard model as surrogate"
    extra = _per_cent(e.transfer & ~e.white_box)
    return extra, f"they break {_per_cent(e.transfer):.1f} %, {extra:.1f} % by themselves"


def silent_success(e: Evidence) -> Finding:
    """Pintor et al.: few runs pass an adversarial example on the way and end on none."""
    silent = _per_cent(e.traces[PGD].silent_successes)
    return silent, f"{silent:.1f} % of its runs pass an adversarial example and end on none"


def rising_loss(e: Evidence) -> Finding:
    """Pintor et al.: the loss rises along the ascent."""
    stuck = 100 * e.traces[PGD].share_of_unmoved_losses
    return stuck, f"it does not for {stuck:.1f} % of the unbroken"


def zero_gradients(e: Evidence) -> Finding:
    """Pintor et al.: no step meets a gradient of zero."""
    zero = 100 * e.traces[PGD].share_of_zero_gradients
    return zero, f"{zero:.1f} % of the steps on unbroken samples"


# Name, and the figures above which the verdict is "warn" and "fail".
CHECKS: tuple[tuple[Callable[[Evidence], Finding], str, float, float], ...] = (
    (single_step, "a single step is no stronger than many", 2, 10),
    (black_box, "black-box attacks find nothing that gradients miss", 3, 10),
    (random_noise, "random noise finds nothing that gradients miss", 1, 5),
    (unbounded, "accuracy falls to 0 as eps grows", 1, 10),
    (more_steps, "more steps are no weaker", 2, 10),
    (converged, f"PGD-{PGD} has converged", 5, 20),
    (other_loss, "the cross-entropy is a good enough guide", 5, 15),
    (transfer, "transferred examples find nothing that gradients miss", 2, 10),
    (silent_success, f"PGD-{PGD} ends on what it finds", 5, 20),
    (rising_loss, "the loss rises under attack", 5, 20),
    (zero_gradients, "gradients are not zero", 1, 10),
)
FLAG_CHECK = "AutoAttack warns of nothing"
CHECK_NAMES = (*(name for _, name, _, _ in CHECKS), FLAG_CHECK)


def judged(e: Evidence) -> tuple[Check, ...]:
    """The verdict of every check, and of AutoAttack's own flags, which have no figure."""
    checks = []
    for look, name, warn, fail in CHECKS:
        figure, text = look(e)
        if figure is None or math.isnan(figure):
            checks.append(Check(name, "not run", text))
        else:
            verdict = "fail" if figure > fail else "warn" if figure > warn else "pass"
            checks.append(Check(name, verdict, text, figure, warn, fail))
    # Randomised, dynamic, or probabilities in place of logits.
    nothing = "no random outputs, zero gradients, or probabilities in place of logits"
    verdict, text = ("fail", " ".join(e.flags)) if e.flags else ("pass", nothing)
    return (*checks, Check(FLAG_CHECK, verdict, text))
