"""A tuning as text of at most 80 columns."""

from __future__ import annotations

import textwrap

from art_lfr.tuning.candidates import Candidate
from art_lfr.tuning.results import Trial, Tuning

WIDTH = 80
# Names of attacks and presets in which an attack needs no gradient.
GRADIENT_FREE = {"Square", "AutoAttack", "quick", "autoattack"}


def multiples(candidate: Candidate) -> str:
    """A candidate as in the table."""
    return f"{candidate.lam:.4g}, {candidate.radius:.4g}, {candidate.step:.4g}"


def row(tuning: Tuning, trial: Trial) -> list[str]:
    """The cells of one trial; lengths as multiples of eps, accuracies in per cent."""
    low, high = trial.interval
    difference = ""
    if trial is not tuning.default:
        d = tuning.against_default(trial)
        difference = f"{d.mean:+.1f} ({d.low:+.1f}, {d.high:+.1f})"
    return [
        "*" if trial is tuning.proposal else "",
        multiples(trial.candidate),
        f"{100 * trial.clean_accuracy:.1f}",
        f"{100 * trial.robust_accuracy:.1f} ({100 * low:.0f}, {100 * high:.0f})",
        difference,
        f"{trial.seconds:.0f}",
    ]


def text(tuning: Tuning) -> str:
    """The table of all trials, the proposal, and what to know when reading them."""
    from tabulate import tabulate

    # As strings: numbers would lose their last zeros.
    table: str = tabulate(
        [row(tuning, trial) for trial in tuning.trials],
        ["", "lam, radius, step", "clean", "worst case", "against default", "s"],
        "simple",
        disable_numparse=True,
        colalign=("left", "left", *["right"] * 4),
    )
    return "\n".join([table, *(wrapped(line) for line in lines(tuning))])


def lines(tuning: Tuning) -> list[str]:
    """What stands below the table."""
    default, attacks = tuning.default, tuning.settings.get("attacks", [])
    found = [
        f"Proposal (*): lam {tuning.lam:.6g}, radius {tuning.radius:.6g}, eps_step "
        f"{tuning.eps_step:.6g}: {tuning.reason}.",
        f"eps {tuning.eps:g}, norm {tuning.norm}. In the table lam and radius are multiples of "
        f"eps, step of eps / {tuning.max_iter}; accuracies are per cent of {len(default.clean)} "
        f"held-out images, the worst case is over {', '.join(attacks)}, in brackets 95 % "
        "intervals. One seed each: another may order close settings otherwise.",
    ]
    if max(t.clean_accuracy for t in tuning.trials) <= tuning.settings.get("largest_class", 0):
        found.append(
            "No trial did better than naming one class for every image, so that this proposal "
            "says nothing: train for more epochs, or with another learning rate."
        )
    if attacks and not GRADIENT_FREE & set(attacks):
        found.append("No attack without gradients judged: a network that hides its own looks good.")
    for trial in tuning.trials:
        if trial.problem:
            found.append(f"{multiples(trial.candidate)}: {trial.problem}")
    used = f"{tuning.seconds / 60:.1f} of {tuning.minutes:g} minutes used"
    if tuning.overrun:
        used += f", {tuning.overrun:.0f} s more than asked for"
    if tuning.not_tried:
        listed = "; ".join(map(multiples, tuning.not_tried))
        used += f"; no time was left for (lam, radius, step) {listed}"
    return [*found, f"{used}."]


def wrapped(line: str) -> str:
    """A line broken at spaces, to fit the width."""
    return textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)
