"""The LFR objective l + lam * penalty, for any PyTorch loop.

    lfr_loss(model, x, y, eps=0.3, lam=0.15).total.backward()

Source: Xu et al., ICIP 2020.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from art_lfr.core.arguments import Array, check_type, keywords_of
from art_lfr.core.criterion import Criterion, LossLike, logits_of
from art_lfr.core.geometry import Bounds, Box, wrong_unit
from art_lfr.core.keywords import LFRKeywords
from art_lfr.core.modes import (
    ModeComparison,
    check_differentiable_weights,
    device_of,
    mode,
    outside_inference_mode,
    protected_buffers,
)
from art_lfr.core.randomness import RandomState, preserved_random_state
from art_lfr.core.samples import as_tensor, check_inputs, inputs_refused, loss_targets, type_for
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError
from art_lfr.penalties import LossView, Penalty, penalty_for

NARROW = (torch.float16, torch.bfloat16)


class LFRTerms(NamedTuple):
    """total = clean + lam * flatness, each a 0-dim tensor (a mean over the batch)."""

    total: Tensor
    clean: Tensor
    flatness: Tensor


class Term(NamedTuple):
    """One summand: weight * value of the clean loss, or of the penalty (without lam).

    `outputs` are the logits of the clean term, None in the others. `joins_next`: its graph is
    needed by the next one, so that both are back-propagated at once.
    """

    weight: float
    value: Tensor
    outputs: Tensor | None = None
    joins_next: bool = False


def objective_terms(
    view: LossView,
    penalty: Penalty,
    x: Tensor,
    y: Tensor,
    searched: Any,
    *,
    x_clean: Tensor | None = None,
    comparison: ModeComparison | None = None,
) -> Iterator[Term]:
    """Yield the summands one after another: the clean loss, then those of the penalty.

    A caller that back-propagates each before asking for the next holds one graph at a time. The
    model must not change in between. `searched` is what `penalty.search` returned, called before.
    `x_clean` replaces x in the clean term only. `comparison` remembers from call to call whether
    the model depends on its mode.

    Random layers see the same masks in all passes of one call, and the global generators move on
    as by one forward pass. Buffers (running statistics) are updated by the clean forward alone.
    """
    model, criterion = view.model, view.criterion
    comparison = comparison or ModeComparison()
    before = RandomState.capture(x.device)
    if view.settings.lam == 0:
        outputs = logits_of(model(x if x_clean is None else x_clean))
        yield Term(1.0, criterion.mean(criterion.values(outputs, y), y), outputs)
        return
    clean = penalty.clean_inputs(x, searched) if x_clean is None else x_clean
    outputs = comparison.clean_pass(model, clean)
    joint = penalty.joint and x_clean is None
    yield Term(1.0, criterion.mean(criterion.values(outputs, y), y), outputs, joint)
    # The penalty's network can differ from the search's (eval mode): by random masks, by the
    # statistics of the batch, by running statistics that the clean forward has moved, or by
    # anything else that the modes decide, which shows in the outputs.
    drawn = RandomState.capture(x.device).differs_from(before)
    view = replace(
        view,
        masks=before,
        differs=drawn or comparison.differs,
        statistics=comparison.statistics,
        clean_logits=outputs if joint else None,
    )
    for weight, values in penalty.checked_parts(view, x, y, searched):
        yield Term(weight, criterion.mean(values, y))


def start_of(
    view: LossView,
    penalty: Penalty,
    x: Tensor,
    generator: torch.Generator,
    ends: Tensor | None = None,
) -> Tensor | None:
    """Where the search of a whole batch starts, shape of x; None where lam is 0: there is none.

    At `ends`, shape of x, where earlier searches have ended, projected on the ball; at
    `penalty.start` without them and where they are NaN.
    """
    if view.settings.lam == 0:
        return None
    start = penalty.start(view.ball, x, generator)
    if start is not None and start.shape != x.shape:
        raise UsageError(
            f"penalty {type(penalty).__name__} starts at points of shape {tuple(start.shape)}; "
            f"allowed: that of the batch, {tuple(x.shape)}, or None"
        )
    if start is None or ends is None:
        return start
    return torch.where(ends.isnan(), start, view.ball.project(ends, x))


def search(view: LossView, penalty: Penalty, x: Tensor, y: Tensor, start: Tensor | None) -> Any:
    """`penalty.search`, global generators left as they are; None where lam is 0."""
    if view.settings.lam == 0:
        return None
    with preserved_random_state(x.device):
        return penalty.search(view, x, y, start)


class LossKeywords(LFRKeywords, total=False):
    """What `lfr_loss` and `LFRLoss` take beside eps."""

    norm: float | str
    steps: int
    step_size: float | None
    bounds: Bounds
    loss: LossLike
    penalty: str | Penalty
    generator: torch.Generator | None


class LFRLoss:
    """`lfr_loss` with its keywords fixed: `LFRLoss(eps=0.3)(model, x, y)`.

    Takes the keywords of `lfr_loss`, which explains them, and checks them once, when it is made.
    Without a `generator` it makes one, seeded with 0, whose start noise goes on from call to call.
    A call returns `LFRTerms`; it raises what `lfr_loss` raises.

    Example::

        from art_lfr import LFRLoss

        objective = LFRLoss(eps=0.1, norm=2)
        objective(model, x, y).total.backward()
    """

    @keywords_of(LFRSettings)
    def __init__(
        self,
        *,
        eps: float,
        norm: float | str = math.inf,
        steps: int = 10,
        step_size: float | None = None,
        bounds: Bounds = (0.0, 1.0),
        loss: LossLike = None,
        penalty: str | Penalty = "lfr",
        generator: torch.Generator | None = None,
        **settings: Unpack[LFRKeywords],
    ) -> None:
        if generator is not None:
            check_type("generator", generator, torch.Generator, "a torch.Generator, or None")
        checked = LFRSettings(eps=eps, norm=norm, steps=steps, step_size=step_size, **settings)
        self.penalty = penalty_for(penalty, settings)
        self.settings = self.penalty.settled(checked)
        self.bounds = bounds
        self.criterion = Criterion(loss)
        self.generator = generator or torch.Generator().manual_seed(0)
        self._comparison = ModeComparison()

    @outside_inference_mode()
    def __call__(self, model: nn.Module, x: Tensor | Array, y: Tensor | Array) -> LFRTerms:
        """The objective of one batch; see `lfr_loss`."""
        return self._objective(model, x, y)

    def _objective(self, model: nn.Module, x: Tensor | Array, y: Tensor | Array) -> LFRTerms:
        """As `__call__`, two calls below the user's."""
        check_type("model", model, nn.Module, "a torch.nn.Module")
        check_differentiable_weights(model, "model")
        inputs = as_tensor("x", x)
        check_inputs("x", inputs)
        if not isinstance(x, Tensor):
            inputs = inputs.to(device_of(model, inputs))
        # A model may narrow its inputs itself, but hardly one takes float64 for float32; and what
        # is narrower than its weights loses nothing.
        dtype = type_for(model, x)
        wider = inputs.dtype in NARROW and dtype not in NARROW
        if not isinstance(x, Tensor) or x.dtype == torch.float64 or wider:
            inputs = inputs.to(dtype)
        box = Box.from_bounds(self.bounds, inputs)
        check_inputs("x", inputs, box)
        unit = wrong_unit(self.settings.eps, self.settings.norm, box)
        for warning in (unit, self.settings.check_radius(inputs)):
            if warning is not None:
                warnings.warn(warning, UserWarning, stacklevel=4)  # the line that wants the loss
        try:
            targets = loss_targets("y", y, model, self.criterion, inputs).to(inputs.device)
            return self._terms(model, inputs, targets, box)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            _check_takes(model, inputs, error)
            raise

    def _terms(self, model: nn.Module, x: Tensor, y: Tensor, box: Box) -> LFRTerms:
        view = LossView(model, self.criterion, box, self.settings)
        searched = search(view, self.penalty, x, y, start_of(view, self.penalty, x, self.generator))
        clean, *parts = objective_terms(
            view, self.penalty, x, y, searched, comparison=self._comparison
        )
        flatness = torch.zeros_like(clean.value)
        for term in parts:
            flatness = flatness + term.weight * term.value
        total = clean.value + self.settings.lam * flatness
        return LFRTerms(total, clean.value, flatness)


def _check_takes(model: nn.Module, x: Tensor, error: Exception) -> None:
    """Raise ValueError, naming x, where `error` is what the model has for such inputs."""
    if isinstance(error, UsageError | torch.cuda.OutOfMemoryError):
        return
    try:
        with (
            torch.no_grad(),
            preserved_random_state(x.device),
            mode(model, training=False),
            protected_buffers(model),
        ):
            model(x[:2].clone())
    except (RuntimeError, ValueError, IndexError, AssertionError):
        raise inputs_refused("x", x, "model", error) from error


@keywords_of(LFRLoss)
def lfr_loss(
    model: nn.Module,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: float,
    **settings: Unpack[LossKeywords],
) -> LFRTerms:
    """The LFR objective of a batch: l(x) + lam * max over the eps-ball of ||grad l||_q.

    Call it with the model in train mode, then `.total.backward()`; scale the total to accumulate
    gradients over batches. The ascent runs in eval mode; all modes and `requires_grad` flags are
    restored. Running statistics are updated once, by the clean forward. Dropout and other random
    layers see the same masks in all passes of one call.

    Args:
        model: Maps (N, ...) to logits (or to an object with `.logits`).
        x: Inputs, shape (N, ...), floating, in raw units.
        y: Labels, shape (N,), or what `loss` takes: for the cross-entropy also rows of
            probabilities.
        eps: Radius of the ball, >= 0, in raw units.
        lam: Weight of the penalty, >= 0. None: eps / 2.
        norm: p of the ball: np.inf, 2 or 1. The gradient is measured in the dual norm q.
        steps: Ascent steps K, >= 0. Ten, as there is no epoch before from which two steps could go
            on, as the trainer's do. With eps 0, steps 0, lam and radius: input-gradient
            regularization.
        step_size: Length of a step. None: 2 eps / steps, and at most 0.4 eps.
        estimator: "finite-difference" or "exact" (double back-propagation).
        radius: Finite-difference radius h. None: eps / 4.
        bounds: Valid inputs (low, high), numbers or per-feature arrays, or None.
        batch_norm: "eval": the penalty uses running statistics; "train": those of its batch.
        renew_every: An ascent step takes two gradients. Take the first of them, at the point
            itself, in every n-th step only: with 2, 10 steps take 16 gradients instead of 21. For
            LFR by finite differences, and for ascents that start anew: with few steps that go on
            from epoch to epoch it can end in a network that only seems robust.
        autocast: Run the ascent's layers in bfloat16: faster where the processor has it. The loss
            that training descends keeps the model's type. For LFR and networks of float32.
        loss: None (cross-entropy), a `torch.nn` loss, or a callable (outputs, y) -> (N,).
        penalty: "lfr", or another in its place: "lfr-held", "input-gradient", "cure", "llr",
            "gradalign", "adversarial-training", "trades" (see `art_lfr.penalties`), or a `Penalty`
            of your own.
        generator: Source of the start noise; None: one seeded with 0, for each call anew.

    Returns:
        `LFRTerms` (total, clean, flatness), 0-dim tensors, in float32 at least, on the model's
        device; flatness is the penalty without lam, and 0 where lam is 0 (it is not computed).

    Example::

        from art_lfr import lfr_loss

        loss = lfr_loss(model, x, y, eps=0.1, lam=0.05)
        loss.total.backward()

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
        RuntimeError: Where "exact" meets a layer without a second derivative.
    """
    with outside_inference_mode():
        return LFRLoss(eps=eps, **settings)._objective(model, x, y)
