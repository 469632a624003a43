"""The measure as users call it: one local flatness per sample, for a module or a classifier."""

from __future__ import annotations

import math
import warnings
from typing import TypedDict, overload

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from art_lfr.art.module import BoundsChoice, ModelAdapter
from art_lfr.art.module_or_classifier import adapter_of
from art_lfr.core.arguments import (
    Array,
    check_integer,
    check_number,
    check_seed,
    keywords_of,
)
from art_lfr.core.criterion import LossLike
from art_lfr.core.flatness import flatness_values
from art_lfr.core.geometry import wrong_unit
from art_lfr.core.modes import device_of, gradients_enabled
from art_lfr.core.processes import Processes
from art_lfr.core.settings import LFRSettings


class MeasureKeywords(TypedDict, total=False):
    """What `local_flatness` takes beside eps."""

    norm: float | str
    steps: int
    step_size: float | None
    estimator: str
    radius: float | None
    bounds: BoundsChoice
    restarts: int
    loss: LossLike
    batch_size: int
    seed: int


@overload
def local_flatness(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, **settings: Unpack[MeasureKeywords]
) -> Tensor: ...


@overload
def local_flatness(
    model: object, x: Array, y: Array, *, eps: float, **settings: Unpack[MeasureKeywords]
) -> Array: ...


@keywords_of()
@gradients_enabled()
def local_flatness(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: float,
    norm: float | str = math.inf,
    steps: int = 20,
    step_size: float | None = None,
    estimator: str = "finite-difference",
    radius: float | None = None,
    bounds: BoundsChoice = "auto",
    restarts: int = 1,
    loss: LossLike = None,
    batch_size: int = 256,
    seed: int = 0,
) -> Tensor | Array:
    """The local flatness of a loss around each sample, as found by projected ascent.

    LF(x) = max over x' with ||x' - x||_p <= eps, inside `bounds`, of ||grad l(x')||_q, 1/p + 1/q
    = 1. The value returned is the exact ||grad l||_q at the best point found, a lower bound of
    LF(x), whichever estimator steered the ascent. It bounds the vulnerability up to the gap of the
    ascent: max over the ball of l(x') - l(x) <= eps * LF(x).

    Args:
        model: A module that maps (N, ...) to logits, with tensors; or an ART `PyTorchClassifier`,
            with NumPy arrays, whose own loss, preprocessing and `clip_values` are then used.
        x: Inputs, shape (N, ...), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows; for a module also what `loss` takes.
        eps: Radius of the ball, >= 0, in raw units.
        norm: p: np.inf, 2 or 1.
        steps: Ascent steps, >= 0.
        step_size: Length of a step; None: 2 eps / steps, and at most 0.4 eps.
        estimator: What steers the ascent: "finite-difference" or "exact".
        radius: Finite-difference radius; None: eps / 4.
        bounds: Valid inputs (low, high), numbers or per-feature arrays, or None. "auto": [0, 1],
            or a classifier's `clip_values`; other bounds beside a classifier are an error.
        restarts: Independent ascents, >= 1. The first starts beside x, the others at random points.
        loss: None (cross-entropy), a `torch.nn` loss, or a callable (outputs, y) -> (N,).
        batch_size: Samples at a time.
        seed: Seed of the start noise.

    Returns:
        One value per sample, shape (N,), in units of the loss per unit of x; a tensor for tensors,
        an array for anything else.

    Example::

        from art_lfr import local_flatness

        print(local_flatness(model, x, y, eps=0.1, restarts=3).mean())

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
        RuntimeError: Where "exact" meets a layer without a second derivative.
    """
    adapter = adapter_of(model, bounds=bounds, loss=loss)
    as_numpy = adapter.classifier is not None or not isinstance(x, Tensor)
    inputs, targets = adapter.tensors(x, y)
    check_number("eps", eps)
    settings = LFRSettings(
        eps=eps,
        norm=norm,
        steps=steps,
        step_size=step_size,
        estimator=estimator,
        # Of no effect on what is measured. At eps 0 nothing is steered, and neither the default of
        # lam nor that of the radius would have a scale.
        lam=1.0,
        radius=1.0 if eps == 0 and radius is None else radius,
    )
    if (unit := wrong_unit(settings.eps, settings.norm, adapter.box(inputs))) is not None:
        warnings.warn(unit, UserWarning, stacklevel=4)  # past the decorators
    if radius is not None:  # in a ball as small as a rounding, the gradient at x is the answer
        settings.check_radius(inputs)
    check_integer("restarts", restarts, low=1)
    check_integer("batch_size", batch_size, low=1)
    check_seed("seed", seed)
    flatness = flatness_with(
        adapter,
        inputs,
        targets,
        settings=settings,
        restarts=restarts,
        batch_size=int(batch_size),
        seed=int(seed),
    )
    return flatness.cpu().numpy() if as_numpy else flatness.to(inputs.device)


def flatness_with(
    adapter: ModelAdapter,
    inputs: Tensor,
    targets: Tensor,
    *,
    settings: LFRSettings,
    batch_size: int,
    seed: int,
    restarts: int = 1,
    processes: Processes | None = None,
) -> Tensor:
    """`local_flatness` of a model and data that are checked, shape (N,), where the model lies."""
    device = device_of(adapter.network, inputs)
    return flatness_values(
        adapter.module,
        adapter.criterion,
        inputs.to(device),
        targets.to(device),
        box=adapter.box(inputs).to(device),
        settings=settings,
        generator=torch.Generator().manual_seed(seed),
        restarts=restarts,
        batch_size=batch_size,
        processes=processes,
    )
