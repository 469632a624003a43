"""Where the ascent of each training sample has ended, for that of the next epoch to start there.

An ascent of few steps that goes on from epoch to epoch is as good as a longer one that starts anew:
docs/performance.md has the experiments. The idea, for adversarial training: Zheng et al.,
"Efficient Adversarial Training with Transferable Adversarial Examples", CVPR 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from art_lfr.core.geometry import per_sample
from art_lfr.data.augmentation import View
from art_lfr.errors import UsageError

# The largest value of a perturbation is so many steps of its sample's scale: one byte a value.
LEVELS = 127


class EndPoints:
    """The perturbations x' - x of the samples of one data set, in the frame of the originals.

    One byte a value: each sample has a scale, its largest value. What is rounded is the start of
    the next ascent, which is then projected on the ball.

    Attributes:
        steps: (N, ...), of int8: a perturbation is `scale / LEVELS * steps`. None before the first
            batch.
        scale: (N,), 0 where no point is known.
    """

    def __init__(self) -> None:
        self.steps: Tensor | None = None
        self.scale: Tensor | None = None

    def of(self, rows: Tensor, x: Tensor, samples: int, view: View | None) -> Tensor:
        """The points of a batch x, which `view` shows of the samples `rows`: the shape of x.

        NaN for a sample of which none is known.
        """
        _, scale = self._stored(x, samples)
        perturbation = self._perturbation(rows, x)
        if view is not None:
            perturbation = _checked("apply", view.apply(perturbation), x)
        return torch.where(per_sample(scale[rows] == 0, x), torch.nan, x + perturbation)

    def keep(self, rows: Tensor, x: Tensor, ends: Tensor, view: View | None) -> None:
        """Have the points `ends` of a batch anew, but where they are NaN."""
        assert self.steps is not None
        assert self.scale is not None
        known = ~ends.flatten(1).isnan().any(dim=1)
        rows_known = rows[known]
        if len(rows_known) == 0:
            return
        found = torch.where(per_sample(known, x), ends - x, 0.0)
        if view is not None:
            undone = view.undo(found, self._perturbation(rows, x))
            found = _checked("undo", undone, x)
        found = found[known]
        # The smallest normal number for a perturbation of zeros, so that it counts as known.
        tiny = torch.finfo(torch.float32).tiny * LEVELS
        scale = found.abs().flatten(1).amax(dim=1).float().clamp(min=tiny)
        steps = (found.float() * per_sample(LEVELS / scale, found)).round()
        self.scale[rows_known] = scale
        self.steps[rows_known] = steps.to(torch.int8)

    def _stored(self, x: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """The store, made for data like x on first use, on the device of x."""
        if self.steps is None or self.scale is None:
            self.steps = torch.zeros(samples, *x.shape[1:], dtype=torch.int8, device=x.device)
            self.scale = torch.zeros(samples, device=x.device)
        # A checkpoint's are on the CPU.
        self.steps, self.scale = self.steps.to(x.device), self.scale.to(x.device)
        return self.steps, self.scale

    def _perturbation(self, rows: Tensor, x: Tensor) -> Tensor:
        """The perturbations of the originals, in the type of x; 0 where none is known."""
        assert self.steps is not None
        assert self.scale is not None
        return (self.steps[rows] * per_sample(self.scale[rows] / LEVELS, x)).to(x.dtype)


def _checked(method: str, moved: object, x: Tensor) -> Tensor:
    """What a view has made of perturbations of x, which may be the work of a user's view."""
    if not isinstance(moved, Tensor):
        what = f"a {type(moved).__name__}"
    elif moved.shape != x.shape:
        what = f"shape {tuple(moved.shape)}"
    elif not moved.is_floating_point():
        what = f"the type {moved.dtype}"
    elif not bool(moved.isfinite().all()):
        what = "NaN or infinity"
    else:
        return moved.to(x.dtype)
    raise UsageError(
        f"`{method}` of the view that augment returned gives {what} for perturbations of shape "
        f"{tuple(x.shape)}; allowed: a tensor of finite floating values of that shape"
    )
