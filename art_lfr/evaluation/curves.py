"""Accuracy against eps: `accuracy_curve`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from art_lfr.art.module import BoundsChoice
from art_lfr.attacks.named import run_attack
from art_lfr.attacks.target import make_target, preserved
from art_lfr.core.arguments import Array, check_number
from art_lfr.core.geometry import Ball
from art_lfr.core.imports import data_frame
from art_lfr.core.modes import gradients_enabled
from art_lfr.core.progress import line
from art_lfr.errors import UsageError
from art_lfr.evaluation.resolve import resolve_attacks
from art_lfr.evaluation.results import Row

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AccuracyCurve:
    """One row per eps, rising: the worst case over the attacks; the first row is eps 0, clean."""

    norm: str
    eps: tuple[float, ...]
    rows: tuple[Row, ...]
    attacks: tuple[str, ...]

    @property
    def about(self) -> str:
        """What the accuracies are, in one sentence."""
        return f"Worst case of {', '.join(self.attacks)} within eps, norm {self.norm}."

    def to_frame(self) -> pandas.DataFrame:
        """The curve as a table: eps (raw units), accuracy, low and high (shares), images."""
        columns = ["accuracy", "low", "high", "images", "seconds"]
        frame: pandas.DataFrame = data_frame([vars(row) for row in self.rows])[columns]
        frame.insert(0, "eps", list(self.eps))
        return frame

    def summary(self) -> dict[str, float]:
        """The accuracy, a share, at each eps."""
        points = zip(self.eps, self.rows, strict=True)
        return {f"accuracy, eps {eps:g}": row.accuracy for eps, row in points}

    def to_dict(self) -> dict[str, Any]:
        """The curve as JSON types."""
        return {"norm": self.norm, "points": self.to_frame().to_dict(orient="records")}


@gradients_enabled()
def accuracy_curve(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: Sequence[float],
    norm: float | str = math.inf,
    attacks: Sequence[str] | str = ("PGD-40", "Square"),
    bounds: BoundsChoice = "auto",
    batch_size: int = 256,
    seed: int = 0,
    verbose: bool = False,
) -> AccuracyCurve:
    """Accuracy under attack as the ball grows; what is near 0 at a large eps is not masked.

    A sample that falls at one eps has fallen at every larger one, whose balls contain the example:
    the curve never rises, and only the samples that stand are attacked again. (ART's
    `SecurityCurve` runs PGD from scratch at each eps, without a seed or a black-box attack.)

    Args:
        model: As for `evaluate`.
        x: Inputs, shape (N, ...), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows.
        eps: The radii, each > 0, in raw units, in any order.
        norm: p of the ball: np.inf, 2 or 1.
        attacks: Names of attacks whose examples lie in the ball, or "quick" or "autoattack".
        bounds: Valid inputs, as for `evaluate`.
        batch_size: Samples at a time.
        seed: Seed of every attack.
        verbose: Print each row to stderr; on a terminal also show what is at work.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
    """
    if isinstance(eps, str | float | int) or len(eps) == 0:
        raise UsageError(f"eps is {eps!r}; allowed: a list of numbers > 0")
    for radius in eps:
        check_number("eps", radius, low_allowed=False)
    radii = sorted({float(radius) for radius in eps})
    target = make_target(
        model,
        x,
        y,
        eps=radii[0],
        norm=norm,
        bounds=bounds,
        batch_size=batch_size,
        seed=seed,
        progress=verbose,
    )
    p = target.ball.p
    rows = []
    names: dict[str, None] = {}
    with preserved(target.module, target.device):
        standing = target.correct(target.x, target.y)
        rows.append(Row.of("0", standing.numpy(), 0.0))
        for radius in radii:
            wider = replace(target, ball=Ball(radius, p, target.ball.box))
            seconds = 0.0
            for attack in resolve_attacks(attacks, wider):
                if attack.threat.p != p or attack.minimal:
                    raise UsageError(
                        f"attacks has {attack.name!r}, which is no attack in the ball; allowed: "
                        "'quick', 'autoattack', and names such as 'PGD-40' and 'Square'"
                    )
                names[attack.name] = None
                result = run_attack(attack, wider, standing)
                standing = standing & result.correct
                seconds += result.seconds
            rows.append(Row.of(f"{radius:g}", standing.numpy(), seconds))
            line(f"eps {radius:g}: {100 * rows[-1].accuracy:.1f} %", shown=verbose)
    return AccuracyCurve(norm=f"{p:g}", eps=(0.0, *radii), rows=tuple(rows), attacks=tuple(names))


def curve_figure(curves: Mapping[str, AccuracyCurve]) -> Figure:
    """Accuracy against eps, a line with its 95 % intervals for each named curve.

    Raises ValueError where the curves have different norms, or there are none.
    """
    from art_lfr.plots.drawing import PALETTE, new_figure, tidy

    norms = {curve.norm for curve in curves.values()}
    if len(norms) != 1:
        raise UsageError(f"curves have the norms {sorted(norms)}; allowed: one norm, one or more")
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    for (name, curve), colour in zip(curves.items(), PALETTE * len(curves), strict=False):
        shares = {key: [100 * getattr(row, key) for row in curve.rows] for key in ("low", "high")}
        axes.plot(
            curve.eps,
            [100 * row.accuracy for row in curve.rows],
            "o-",
            color=colour,
            label=name,
            markersize=3,
        )
        axes.fill_between(curve.eps, shares["low"], shares["high"], color=colour, alpha=0.15)
    axes.set_xlabel(f"eps (norm {norms.pop()}, units of the input)")
    attacks = dict.fromkeys(name for curve in curves.values() for name in curve.attacks)
    axes.set_ylabel("accuracy under attack (%)")
    axes.set_ylim(0, 101)
    counts = sorted({curve.rows[0].images for curve in curves.values()})
    axes.set_title(
        f"Worst case of {', '.join(attacks)}; {' and '.join(map(str, counts))} images\n"
        "bands: 95 % intervals over the images",
        fontsize=10,
    )
    axes.legend(frameon=False)
    tidy(axes)
    return figure
