"""A user's module in the form that everything works on, which a classifier takes too."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from typing_extensions import TypeIs

from art_lfr.core.criterion import Criterion, LossLike
from art_lfr.core.geometry import Bounds, Box
from art_lfr.core.modes import check_differentiable_weights, device_of, dtype_of
from art_lfr.core.samples import as_tensor, check_inputs, class_labels, loss_targets, type_for

# "auto": [0, 1] for a module, a classifier's own clip_values.
BoundsChoice: TypeAlias = "Bounds | Literal['auto']"


def is_auto(bounds: BoundsChoice) -> TypeIs[Literal["auto"]]:
    """Whether `bounds` were left to the model; not by `==`, which arrays take for themselves."""
    return isinstance(bounds, str) and bounds == "auto"


class ModelAdapter:
    """A plain module, its loss and its valid inputs; of this kind is `ClassifierAdapter` too.

    Attributes:
        name: What errors call it.
        network: The user's own module.
        module: Raw inputs to logits: the network, or what an ART classifier does around it.
        criterion: The loss, per sample.
        bounds: The valid inputs (low, high), or None.
        classifier: The user's ART classifier; None for a plain module.
    """

    classifier: Any = None

    def __init__(
        self,
        network: nn.Module,
        *,
        bounds: BoundsChoice = "auto",
        loss: LossLike = None,
        name: str = "model",
    ) -> None:
        check_differentiable_weights(network, name)
        self.network = self.module = network
        self.criterion = Criterion(loss)
        self.bounds: Bounds = (0.0, 1.0) if is_auto(bounds) else bounds
        self.name = name

    def parts(self) -> dict[str, Any]:
        """What a run of this model must find again, beside its weights."""
        return {"loss": self.criterion, "bounds": self.bounds}

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the model's parameters."""
        return dtype_of(self.network)

    @property
    def device(self) -> torch.device:
        """Where the model's parameters lie; the CPU where it has none."""
        return device_of(self.network, torch.empty(0))

    def box(self, like: Tensor) -> Box:
        """The valid inputs as tensors on the device of `like`, a batch."""
        return Box.from_bounds(self.bounds, like)

    def inputs(self, x: object, name: str = "x", dtype: torch.dtype | None = None) -> Tensor:
        """Checked inputs where they lay; never the user's own memory.

        In the model's type, where `dtype` is None. A tensor for a model without parameters keeps
        its own.
        """
        tensor = as_tensor(name, x)
        check_inputs(name, tensor)
        self._check_shape(tensor, name)
        dtype = dtype or type_for(self.network, x)
        tensor = tensor.to(dtype=dtype, copy=True)
        check_inputs(name, tensor, self.box(tensor))
        return tensor

    def _check_shape(self, tensor: Tensor, name: str) -> None:
        """A module's inputs have the shape that it takes."""

    def labels(self, y: object, count: int, classes: int, name: str = "y") -> Tensor:
        """Index labels on the CPU, shape (N,), from indices or one-hot rows."""
        return class_labels(name, y, count, classes)

    def targets(self, labels: Tensor) -> Tensor:
        """What the loss takes for index labels."""
        return labels

    def tensors(self, x: object, y: object, suffix: str = "") -> tuple[Tensor, Tensor]:
        """Checked inputs, and y as a plain module's loss takes it."""
        inputs = self.inputs(x, f"x{suffix}")
        return inputs, loss_targets(f"y{suffix}", y, self.network, self.criterion, inputs)
