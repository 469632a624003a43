"""The gate for data: inputs and labels as users have them, checked in one way for all functions.

Taken are tensors, NumPy arrays, lists, and what has `to_numpy` (the frames and series of pandas).
"""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from art_lfr.core.arguments import Array
from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.geometry import Box
from art_lfr.core.modes import dtype_of, mode
from art_lfr.core.randomness import preserved_random_state
from art_lfr.errors import UsageError, WrongTypeError

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Rows of probabilities, of any precision, add up to 1 within this.
SUM_SLACK = 1e-2
# Larger numbers are no labels, and floats that large have no fractions.
LARGEST_LABEL = 2**53


def as_tensor(name: str, value: object) -> Tensor:
    """Numbers as a dense tensor without a graph, which may share the user's memory.

    Raises TypeError or ValueError, naming the parameter, for anything else and for masked entries.
    """
    if isinstance(value, Tensor):
        dense = value.layout == torch.strided and not value.is_nested and not value.is_meta
        if not dense or value.is_quantized:
            raise WrongTypeError(
                f"{name} is a tensor of layout {value.layout} and dtype {value.dtype} on "
                f"{value.device}; allowed: a dense tensor with values, as of .to_dense() or "
                ".dequantize()"
            )
        tensor = value.detach()
        # Autograd takes no tensor that was made in inference mode.
        return tensor.clone() if tensor.is_inference() else tensor
    return torch.from_numpy(_as_array(name, value))


def to_array(name: str, value: object) -> Array:
    """`as_tensor` as an array; bfloat16, which NumPy does not have, becomes float32."""
    tensor = as_tensor(name, value).cpu()
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _as_array(name: str, value: object) -> Array:
    """Numbers as an array that torch takes: of this machine's byte order, with plain strides."""
    try:
        # By their method: pandas is not needed for anything else.
        plain = value.to_numpy() if hasattr(value, "to_numpy") else value
        array: Array = np.asarray(plain)
        # Columns of several types, and of types with a missing value, are Python's objects.
        if array.dtype == object and plain is not value:
            numbers = array.ravel().tolist()
            if all(isinstance(number, Real) for number in numbers):
                array = np.array(numbers).reshape(array.shape)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_numbers(name, value) from error
    if array.dtype.kind not in "biuf":
        raise _no_numbers(name, value, array)
    if any(map(np.ma.is_masked, plain if isinstance(plain, list | tuple) else [plain])):
        raise UsageError(
            f"{name} is a {type(value).__name__} with masked entries; allowed: none masked (torch "
            "knows no masks: fill them, or leave their samples out)"
        )
    if array.dtype.kind == "u" and array.itemsize > 1:  # older torch has no such types
        array = np.minimum(array.astype(np.uint64), np.uint64(2**63 - 1)).astype(np.int64)
    elif array.dtype.kind == "f" and array.itemsize > 8:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim:
        array = np.ascontiguousarray(array)  # torch takes no negative strides, as of x[::-1]
    return array if array.flags.writeable else array.copy()  # torch warns about read-only memory


def _no_numbers(name: str, value: object, array: Array | None = None) -> WrongTypeError:
    dtype = "" if array is None or array.ndim == 0 else f" of dtype {array.dtype}"
    return WrongTypeError(
        f"{name} is a {type(value).__name__}{dtype}; allowed: a numeric array or tensor"
    )


def type_for(model: nn.Module, x: object) -> torch.dtype:
    """The type of inputs: that of the model's parameters; without any, a tensor keeps its own."""
    typed = any(parameter.is_floating_point() for parameter in model.parameters())
    return x.dtype if isinstance(x, Tensor) and not typed else dtype_of(model)


def check_inputs(name: str, x: Tensor, box: Box | None = None) -> None:
    """Raise ValueError unless x is a non-empty, floating, finite batch inside the box."""
    if x.dim() < 2 or len(x) == 0 or x[0].numel() == 0:
        raise UsageError(
            f"{name} has shape {tuple(x.shape)}; allowed: (N, ...) with at least one sample"
        )
    if x.dtype not in FLOATS:
        raise UsageError(
            f"{name} has dtype {x.dtype}; allowed: floating point (convert integer images and "
            "scale them as the model expects)"
        )
    if not bool(x.isfinite().all()):
        raise UsageError(f"{name} holds NaN or infinite values; allowed: finite values")
    if box is not None and not box.contains(x):
        low, high = float(box.low.min()), float(box.high.max())
        raise UsageError(
            f"{name} has values from {float(x.min()):g} to {float(x.max()):g}; allowed: inside "
            f"the bounds, [{low:g}, {high:g}]"
            + (", or less, feature by feature" if box.low.dim() or box.high.dim() else "")
        )


def inputs_refused(
    name: str, x: Tensor, model: str, error: Exception, hint: str = ""
) -> UsageError:
    """What to raise where a model fails on inputs of this shape and type."""
    detail = " ".join(str(error).split())[:200]
    return UsageError(
        f"{name} has shape {tuple(x.shape)}, on which the {model} fails{hint}; allowed: inputs "
        f"that the {model} takes, (N, C, H, W) for most image models. The {model} said: {detail}"
    )


def class_labels(name: str, y: object, count: int, classes: int | None = None) -> Tensor:
    """Index labels of `count` samples on the CPU, int64, shape (N,), in 0 to classes - 1.

    From integers, booleans or whole floats of shape (N,) or (N, 1), or from one-hot rows. `classes`
    None: as many as there may be. Raises ValueError or TypeError, naming the parameter, for others.
    """
    labels = _one_for_each(name, as_tensor(name, y), count).cpu()
    shape = "" if classes is None else f" of shape (N, {classes})"
    allowed = f"allowed: integer labels of shape (N,), or one-hot rows (one 1, else 0){shape}"
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() == 2:
        wrong = ~_one_hot(labels)
        if bool(wrong.any()) or labels.shape[1] != (classes or labels.shape[1]):
            row = int(wrong.int().argmax())  # the first of the wrong ones
            raise UsageError(
                f"{name} has shape {tuple(labels.shape)} and the row {labels[row].tolist()!s:.80}; "
                f"{allowed}"
            )
        labels = labels.int().argmax(dim=1)
    if labels.dim() != 1:
        raise UsageError(f"{name} has shape {tuple(labels.shape)}; {allowed}")
    labels = _whole(name, labels, allowed)
    check_range(name, labels, classes)
    return labels


def check_range(name: str, labels: Tensor, classes: int | None) -> None:
    """Raise ValueError unless all index labels lie in 0 to classes - 1."""
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and (classes is None or high < classes):
        return
    allowed = "0 and above"
    if classes is not None:
        allowed = f"0 to {classes - 1}, as the model has {classes} classes"
        if low == 1 and high == classes:
            allowed += "; they seem to begin with 1: use y - 1"
    raise UsageError(f"{name} has labels from {low} to {high}; allowed: {allowed}")


def loss_targets(name: str, y: object, model: nn.Module, criterion: Criterion, x: Tensor) -> Tensor:
    """What a plain module's loss takes for the samples x, on the device of y.

    Losses of classes (cross-entropy, negative log-likelihood) take labels in the forms of
    `class_labels`, and cross-entropy also rows of probabilities; other losses get what was given.
    Raises ValueError or TypeError, naming the parameter, for anything else.
    """
    targets = _one_for_each(name, as_tensor(name, y), len(x))
    if not criterion.of_classes:
        # A user's own function may know what to do with them.
        if criterion.of_torch and not bool(targets.isfinite().all()):
            raise UsageError(f"{name} holds NaN or infinite values; allowed: finite values")
        return targets
    if not targets.is_floating_point():
        targets = targets.long()
    if targets.dim() > 2:
        return targets
    rows = targets.dim() == 2 and targets.shape[1] > 1
    if not rows:
        return _whole(name, targets, "allowed: integer labels of shape (N,)")
    if targets.is_floating_point() and criterion.of_rows:
        sums = targets.double().sum(dim=1)
        wrong = ~((targets >= 0).all(dim=1) & ((sums - 1).abs() <= SUM_SLACK))
        if bool(wrong.any()):
            row = int(wrong.int().argmax())
            raise UsageError(
                f"{name} has shape {tuple(targets.shape)} and the row "
                f"{targets[row].tolist()!s:.80}; allowed: integer labels of shape (N,), or rows of "
                "probabilities, which are 0 or more and add up to 1"
            )
        return targets
    # Integers (N, L) can also be the labels of L places, for outputs (N, classes, L).
    if bool(_one_hot(targets).all()) and _outputs(model, x) == targets.shape[1:]:
        return targets.argmax(dim=1)
    return targets


def _one_for_each(name: str, y: Tensor, count: int) -> Tensor:
    if y.dim() == 0 or len(y) != count:
        raise UsageError(
            f"{name} has shape {tuple(y.shape)} for {count} samples; allowed: one label per sample"
        )
    if y.is_complex():
        raise UsageError(f"{name} has dtype {y.dtype}; allowed: integer labels, or rows of floats")
    return y


def _one_hot(rows: Tensor) -> Tensor:
    """Which rows are one 1 and else 0, shape (N,)."""
    rows = rows.double()
    return ((rows == 0) | (rows == 1)).all(dim=1) & (rows.sum(dim=1) == 1)


def _whole(name: str, labels: Tensor, allowed: str) -> Tensor:
    """Labels as int64; ValueError for fractions, NaN and infinite values."""
    if labels.is_floating_point():
        values = labels.double().flatten()
        wrong = ~((values == values.trunc()) & (values.abs() < LARGEST_LABEL))
        if bool(wrong.any()):
            raise UsageError(
                f"{name} has the label {float(values[int(wrong.int().argmax())]):g}; {allowed}"
            )
    return labels.long()


def _outputs(model: nn.Module, x: Tensor) -> torch.Size:
    """The shape of the model's outputs for one sample."""
    with torch.no_grad(), preserved_random_state(x.device), mode(model, training=False):
        return logits_of(model(x[:1].clone())).shape[1:]
