"""The loss's gradient in the input as a picture, with numbers: alignment and sparsity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from art_lfr.art.adapter import BoundsChoice
from art_lfr.core.arguments import Array
from art_lfr.core.criterion import LossLike
from art_lfr.errors import UsageError
from art_lfr.plots.problem import frame_of, make_problem

if TYPE_CHECKING:
    import pandas


def alignment(images: Array, gradients: Array) -> Array:
    """|<x, g>| / ||g||_2 of each sample: (N, ...) and (N, ...) -> (N,); NaN where g is 0.

    At most ||x||_2, where g points along x or against it; it has x's unit and does not change
    with g's length. Source: Etmann, Lunz, Maass, Schoenlieb, "On the Connection Between
    Adversarial Robustness and Saliency Map Interpretability", ICML 2019, where g is the gradient
    of the winning logit. Raises ValueError where the shapes differ.
    """
    if images.shape != gradients.shape or images.ndim < 2:
        raise UsageError(
            f"images has shape {images.shape} and gradients {gradients.shape}; allowed: the same "
            "shape (N, ...)"
        )
    x, g = (array.reshape(len(array), -1).astype(np.float64) for array in (images, gradients))
    alignments: Array = np.abs(np.sum(x * _unit(g), axis=1))
    return alignments


def hoyer_sparsity(gradients: Array) -> Array:
    """(sqrt(n) - ||g||_1 / ||g||_2) / (sqrt(n) - 1) of each sample, n entries: (N, ...) -> (N,).

    1 where one entry is not 0, 0 where all have the same size; it does not change with g's
    length. NaN where g is 0. Source: Hoyer, "Non-negative Matrix Factorization with Sparseness
    Constraints", JMLR 5, 2004. Raises ValueError for samples with fewer than two entries.
    """
    g = gradients.reshape(len(gradients), -1).astype(np.float64)
    root = math.sqrt(g.shape[1])
    if g.shape[1] < 2:
        raise UsageError(
            f"gradients has shape {gradients.shape}; allowed: (N, ...) with at least two entries "
            "in a sample"
        )
    sparsity: Array = (root - np.abs(_unit(g)).sum(axis=1)) / (root - 1)
    return sparsity


def _unit(g: Array) -> Array:
    """g / ||g||_2 of each row, NaN where it is 0; tiny gradients do not underflow."""
    largest = np.abs(g).max(axis=1, keepdims=True)
    scaled = np.divide(g, largest, out=np.full_like(g, np.nan), where=largest > 0)
    unit: Array = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit


@dataclass(frozen=True, eq=False)
class GradientMaps:
    """Samples x and the gradients g of their losses, both (N, ...), and the labels (N,).

    x is in raw units, g in the loss's unit per unit of x (nats for cross-entropy).
    """

    labels: Array
    images: Array
    gradients: Array

    @property
    def alignment(self) -> Array:
        """|<x, g>| / ||g||_2, shape (N,), in units of x: see `alignment`."""
        return alignment(self.images, self.gradients)

    @property
    def cosine(self) -> Array:
        """|<x, g>| / (||x||_2 ||g||_2), shape (N,), in [0, 1]; NaN where x or g is 0.

        The alignment without its unit, so that bright images do not count for more.
        """
        x = self.images.reshape(len(self.images), -1).astype(np.float64)
        return alignment(_unit(x), self.gradients.reshape(x.shape))

    @property
    def sparsity(self) -> Array:
        """Hoyer's sparsity of g, shape (N,), in [0, 1]: see `hoyer_sparsity`."""
        return hoyer_sparsity(self.gradients)

    @property
    def size(self) -> Array:
        """||g||_1, shape (N,): the slope under changes of all entries at once."""
        flat = self.gradients.reshape(len(self.gradients), -1).astype(np.float64)
        size: Array = np.abs(flat).sum(axis=1)
        return size

    def summary(self) -> dict[str, float]:
        """Means over the samples whose gradient and image are not 0, and how many those are."""
        frame = self.to_frame()
        defined = frame[frame["cosine"].notna()]
        return {
            "samples": len(frame),
            "with a gradient": len(defined),
            **{f"mean {name}": float(defined[name].mean()) for name in list(frame)[2:]},
        }

    def to_frame(self) -> pandas.DataFrame:
        """One row for each sample, without the maps."""
        return frame_of(self, "alignment", "cosine", "sparsity", "size")


def gradient_maps(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    loss: LossLike = None,
    batch_size: int = 256,
) -> GradientMaps:
    """grad_x l(x) of each sample, model in eval mode, with its alignment and sparsity.

    The gradients of robust networks look like what they are shown, which is taken as a sign that
    they see as humans do; alignment and sparsity put numbers beside the picture. Where the loss
    is below about 1e-7, float32 has lost the true class's part of the gradient; the gradient of
    the winning logit, as Etmann et al. take it, is that of
    `loss=lambda logits, y: logits.amax(dim=1)`.

    Args:
        model: A module that maps (N, ...) to logits; or an ART `PyTorchClassifier`, whose own
            loss, preprocessing and `clip_values` are then used.
        x: Inputs, shape (N, ...), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows.
        loss: None (cross-entropy), a `torch.nn` loss, or a callable (logits, y) -> (N,).
        batch_size: Samples at a time.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
    """
    # Nothing here leaves x, so that a module needs no bounds; a classifier has its own.
    bounds: BoundsChoice = None if isinstance(model, nn.Module) else "auto"
    problem = make_problem(model, x, y, bounds=bounds, loss=loss, batch_size=batch_size)
    with problem.preserved():
        gradients = problem.gradient(problem.x, problem.y)
    return GradientMaps(
        labels=problem.labels.numpy(),
        images=problem.x.cpu().numpy(),
        gradients=gradients.cpu().numpy(),
    )
