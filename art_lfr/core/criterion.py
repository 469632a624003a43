"""One loss value per sample, from the loss a user already has."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from art_lfr.errors import UsageError, WrongTypeError

LossLike: TypeAlias = nn.Module | Callable[[Tensor, Tensor], Tensor] | None


# Losses that broadcast targets of another shape, with no more than a warning.
ELEMENTWISE = (
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.HuberLoss,
    nn.KLDivLoss,
    nn.L1Loss,
    nn.MSELoss,
    nn.MultiLabelSoftMarginLoss,
    nn.PoissonNLLLoss,
    nn.SmoothL1Loss,
    nn.SoftMarginLoss,
)


class Criterion:
    """A per-sample loss L(f(x), y), and the mean that the user's own loss would give.

    `loss` is None (cross-entropy), a `torch.nn` loss with a `reduction`, or a callable that maps
    (outputs, y) to one value per sample, shape (N,). Class weights, `ignore_index` and label
    smoothing of `CrossEntropyLoss` and `NLLLoss` are honoured, with the same normalisation:
    mean = sum of values / sum of the samples' weights.
    """

    def __init__(self, loss: LossLike | Criterion = None) -> None:
        self._loss: Callable[[Tensor, Tensor], Tensor]
        # The losses that add up the entries of one sample: ones with reduction "sum", "batchmean".
        self._adds_entries = False
        self._checked: Tensor | None = None
        loss = nn.CrossEntropyLoss() if loss is None else loss
        if isinstance(loss, Criterion):
            self._loss, self._adds_entries = loss._loss, loss._adds_entries
        elif isinstance(loss, nn.Module):
            if not hasattr(loss, "reduction"):
                raise UsageError(
                    f"loss is {type(loss).__name__}, which has no `reduction`; allowed: a torch.nn "
                    "loss with `reduction`, or a callable (outputs, y) -> one value per sample"
                )
            # A shallow copy: the user's loss keeps its own reduction, class weights are shared.
            copied: Any = copy.copy(loss)
            self._adds_entries = copied.reduction in ("sum", "batchmean")
            copied.reduction = "none"
            self._loss = copied
        elif callable(loss) and not isinstance(loss, type):
            self._loss = loss
        else:
            raise WrongTypeError(
                f"loss is {loss!r}; allowed: None, a torch.nn loss with `reduction`, "
                "or a callable (outputs, y) -> one value per sample"
            )

    @property
    def of_classes(self) -> bool:
        """Whether the loss is one of torch's that take index labels."""
        return type(self._loss) in (nn.CrossEntropyLoss, nn.NLLLoss)

    @property
    def name(self) -> str:
        """What the loss is called."""
        return getattr(self._loss, "__name__", type(self._loss).__name__)

    @property
    def of_entries(self) -> bool:
        """Whether the loss is one of torch's that compare entry by entry."""
        return isinstance(self._loss, ELEMENTWISE)

    @property
    def of_rows(self) -> bool:
        """Whether the loss also takes rows of probabilities."""
        return type(self._loss) is nn.CrossEntropyLoss

    @property
    def of_torch(self) -> bool:
        """Whether the loss is one of `torch.nn`, as opposed to a function of the user's."""
        return type(self._loss).__module__.startswith("torch.nn")

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """One loss value per sample, shape (N,)."""
        if outputs.dim() == 2 and y.shape == (len(outputs), 1) and self.of_classes:
            y = y[:, 0]
        if not (outputs.is_floating_point() or outputs.is_complex()):
            raise WrongTypeError(
                f"the model returned logits of type {outputs.dtype}; allowed: floating ones, "
                "through which gradients pass"
            )
        self._check_labels(outputs, y)
        try:
            values: object = self._loss(outputs, y.long() if self._takes_indices(y) else y)
        except torch.cuda.OutOfMemoryError:
            raise
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            if not self.of_torch:
                raise
            raise UsageError(
                f"y has shape {tuple(y.shape)} and dtype {y.dtype}; allowed: what "
                f"{type(self._loss).__name__} takes for outputs of shape {tuple(outputs.shape)}. "
                f"It said: {str(error).splitlines()[0]}"
            ) from error
        if not isinstance(values, Tensor):
            raise WrongTypeError(
                f"loss returned a {type(values).__name__}; allowed: a tensor, one value per sample"
            )
        if values.dim() == 0 or len(values) != len(outputs):
            raise UsageError(
                f"loss returned shape {tuple(values.shape)} for {len(outputs)} samples; "
                "allowed: one value per sample"
            )
        return self._per_sample(values)

    def _check_labels(self, outputs: Tensor, y: Tensor) -> None:
        """Raise ValueError where torch's losses would fail, broadcast, or end CUDA."""
        if isinstance(self._loss, ELEMENTWISE) and y.shape != outputs.shape:
            raise UsageError(
                f"y has shape {tuple(y.shape)}; allowed with {type(self._loss).__name__}: that of "
                f"the model's outputs, {tuple(outputs.shape)}"
            )
        if not self.of_classes or outputs.dim() < 2:
            return
        indices = outputs.shape[:1] + outputs.shape[2:]
        dense = self.of_rows and y.is_floating_point()
        if y.shape != (outputs.shape if dense else indices):
            raise UsageError(
                f"y has shape {tuple(y.shape)} and dtype {y.dtype}; allowed: integer labels of "
                f"shape {tuple(indices)}, or with CrossEntropyLoss probabilities of shape "
                f"{tuple(outputs.shape)}"
            )
        if dense or y is self._checked:
            return
        counted: Any = y[y != self._loss.ignore_index]  # type: ignore[attr-defined]
        low, high = (int(counted.min()), int(counted.max())) if counted.numel() else (0, 0)
        if low < 0 or high >= outputs.shape[1]:
            raise UsageError(
                f"y has labels from {low} to {high}; allowed: 0 to {outputs.shape[1] - 1}, as the "
                f"model has {outputs.shape[1]} classes"
            )
        # An ascent takes the loss of the same labels many times.
        self._checked = y

    def _per_sample(self, values: Tensor) -> Tensor:
        if values.dim() == 1:
            return values
        entries = values.flatten(1)
        return entries.sum(dim=1) if self._adds_entries else entries.mean(dim=1)

    def _takes_indices(self, y: Tensor) -> bool:
        return (
            isinstance(self._loss, nn.CrossEntropyLoss | nn.NLLLoss) and not y.is_floating_point()
        )

    def sample_weights(self, y: Tensor) -> Tensor | None:
        """The weight of each sample in the mean, shape (N,); None where all weigh the same."""
        if not isinstance(self._loss, nn.CrossEntropyLoss | nn.NLLLoss) or y.is_floating_point():
            return None
        ignored = y == self._loss.ignore_index
        if self._loss.weight is None:
            return self._per_sample((~ignored).float()) if bool(ignored.any()) else None
        weights = self._loss.weight[y.long().masked_fill(ignored, 0)]
        return self._per_sample(weights.masked_fill(ignored, 0.0))

    def weighted(self, values: Tensor, y: Tensor) -> Tensor:
        """Values that are not of the loss, with the weights that those of the loss carry."""
        weights = self.sample_weights(y)
        return values if weights is None else values * weights

    def mean(self, values: Tensor, y: Tensor) -> Tensor:
        """The mean over samples as the user's loss takes it: a 0-dim tensor."""
        weights = self.sample_weights(y)
        # Values of weighted losses carry their weight already.
        return values.mean() if weights is None else values.sum() / weights.sum()

    def predicted(self, outputs: Tensor) -> Tensor:
        """The predicted label of each sample, shape (N,); a single output is thresholded."""
        if outputs.dim() > 1 and outputs.shape[1] > 1:
            return outputs.argmax(dim=1)
        threshold = 0.5 if isinstance(self._loss, nn.BCELoss) else 0.0
        return (outputs.flatten() > threshold).long()

    def correct(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Whether each sample's prediction is its label (an index, or a one-hot row), (N,)."""
        labels = y.argmax(dim=1) if y.dim() == 2 and y.shape[1] > 1 else y.flatten().long()
        return self.predicted(outputs) == labels


def logits_of(outputs: object) -> Tensor:
    """The logits in a model's output: a tensor, or the `.logits` of a Hugging Face output.

    In float32 where they are narrower.
    """
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, torch.Tensor):
        raise WrongTypeError(
            f"the model returned {type(outputs).__name__}; allowed: a tensor of logits, "
            "or an object with `.logits`"
        )
    # A loss of bfloat16 logits has two digits; widened, they keep their own.
    narrow = logits.dtype in (torch.float16, torch.bfloat16)
    return logits.float() if narrow else logits
