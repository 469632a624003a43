"""What in a model, a classifier or data does not go with LFR, and the fix: `check_model`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from art_lfr.check.probing import Probe
from art_lfr.core.arguments import check_choice, check_integer
from art_lfr.core.geometry import Bounds, Box
from art_lfr.core.modes import (
    device_of,
    dtype_of,
    gradients_enabled,
    kept_in_eval_mode,
    parameters_of,
)
from art_lfr.core.samples import as_tensor, class_labels
from art_lfr.core.settings import ESTIMATORS
from art_lfr.errors import UsageError, WrongTypeError


@dataclass(frozen=True)
class Finding:
    """A layer or a setting that does not go with LFR, and how to fix it.

    `severity` is "error" where training fails or means something else than intended, "warning"
    where it works with a loss in quality.
    """

    layer: str
    problem: str
    fix: str
    severity: str = "error"

    def __str__(self) -> str:
        return f"{self.severity}: {self.layer}: {self.problem}. Fix: {self.fix}"


def look_at_data(x: Tensor, bounds: Bounds) -> Iterator[Finding]:
    """Inputs that are not in the units in which eps and the bounds are meant."""
    if not x.is_floating_point():
        fix = "x.astype('float32') / 255 with bounds (0, 1), or floats with clip_values (0, 255)"
        if x.dtype == torch.bool or (x.dtype == torch.uint8 and int(x.max()) <= 1):
            fix = "x.astype('float32') with bounds (0, 1)"
        yield Finding(
            "data",
            f"x has {'booleans' if x.dtype == torch.bool else 'integers'} ({x.dtype})",
            fix,
        )
        x = x.double()
    if not bool(x.isfinite().all()):
        yield Finding("data", "x holds NaN or infinite values", "remove them")
        return
    low, high = float(x.min()), float(x.max())
    bottom, top = (-math.inf, math.inf)
    if bounds is not None:
        bottom, top = float(np.min(np.asarray(bounds[0]))), float(np.max(np.asarray(bounds[1])))
    outside = low < bottom - 1e-6 or high > top + 1e-6
    mean, spread = float(x.double().mean()), float(x.double().std(correction=0))
    if low < 0 and abs(mean) < 0.5 and 0.5 < spread < 2 and (outside or bounds is None):
        yield Finding(
            "data",
            f"x looks standardised already (mean {mean:.2f}, standard deviation {spread:.2f}, "
            f"from {low:.2f}), so eps would not be in raw units",
            "keep x raw, and put mean and standard deviation into PyTorchClassifier("
            "preprocessing=(mean, std)) or into a first layer",
            "error" if outside else "warning",
        )
    elif outside or (bounds is None and high > 2 and low >= 0):
        allowed = "unknown" if bounds is None else f"[{bottom:g}, {top:g}]"
        yield Finding(
            "data",
            f"x has values from {low:g} to {high:g} where the bounds are {allowed}",
            "scale x (x / 255 for images in 0 to 255), or give its true range as bounds or "
            "clip_values, with eps in the same units",
            "error" if outside else "warning",
        )
    elif math.isfinite(top) and ((top > 2 and high <= 1) or 0 <= low < high <= top / 100):
        yield Finding(
            "data",
            f"x has no value above {high:g} where the bounds reach {top:g}",
            "one unit for x, bounds and eps: clip_values (0, 1) for x in [0, 1]; images of 0 and 1 "
            "are not to be divided by 255",
            "warning",
        )


# A BatchNorm's statistics of fewer samples than this are mostly noise.
TINY_BATCH = 16
# Samples that are tried.
PROBED = 4


@gradients_enabled()
def check_model(
    model: object,
    x: Any = None,
    y: Any = None,
    *,
    estimator: str = "finite-difference",
    batch_size: int = 128,
    bounds: Bounds = (0.0, 1.0),
) -> list[Finding]:
    """Name each layer and setting that does not go with LFR, with its fix; errors come first.

    The network is tried on a few samples: gradients, second derivatives where `estimator` is
    "exact", and draws of random numbers, each traced to the innermost module. Modes, buffers,
    flags and the random state are left as found.

    Args:
        model: A module, or an ART `PyTorchClassifier`, whose `clip_values` then stand for
            `bounds`.
        x: Inputs as they will be trained on, shape (N, ...). None: random ones for a classifier;
            for a module only the layers' kinds are looked at.
        y: Labels of x, as they will be trained on: indices, shape (N,), or one-hot rows.
        estimator: "finite-difference" or "exact".
        batch_size: That of the training to come.
        bounds: Valid inputs (low, high), or None.

    Returns:
        A list of `Finding`, empty where nothing was found.

    Raises:
        ValueError, TypeError: For bad arguments, naming the parameter.
    """
    check_choice("estimator", estimator, ESTIMATORS)
    check_integer("batch_size", batch_size, low=1)
    data = None if x is None else as_tensor("x", x).cpu()
    if data is not None and (data.dim() < 2 or data.numel() == 0):
        raise UsageError(
            f"x has shape {tuple(data.shape)}; allowed: (N, ...) with N >= 1, and no size of 0"
        )
    if data is not None and isinstance(model, nn.Module):
        Box.from_bounds(bounds, data.double())  # raises where they are no bounds
    findings: list[Finding] = []
    callable_model: nn.Module | None
    loss: object = nn.CrossEntropyLoss()
    trained: Collection[nn.Parameter]
    if isinstance(model, nn.Module):
        network, callable_model, trained = model, model, list(model.parameters())
        if data is None:
            problem = "no sample was given, so the layers were not tried"
            findings.append(Finding("data", problem, "pass x", "warning"))
    else:
        network, callable_model, bounds, drawn = _look_at_classifier(model, findings)
        data = drawn if data is None else data
        loss, optimizer = getattr(model, "loss", None), getattr(model, "optimizer", None)
        trained = list(network.parameters())
        if isinstance(optimizer, torch.optim.Optimizer):
            trained = parameters_of(optimizer)
    if x is not None and data is not None:
        findings += look_at_data(data, bounds)
    if callable_model is not None and data is not None:
        probe = Probe(
            callable_model, network, data[:PROBED].to(device_of(network, data), dtype_of(network))
        )
        statistics = probe.layers_with_statistics()
        findings += _try(probe, estimator)
        findings += _outputs(probe, loss)
        if y is not None:
            findings += look_at_labels(probe, data, y)
    else:
        statistics = {name: m for name, m in network.named_modules() if isinstance(m, _BatchNorm)}
    findings += _batch_norm(network, statistics, batch_size, trained)
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _look_at_classifier(
    classifier: Any, findings: list[Finding]
) -> tuple[nn.Module, nn.Module | None, Bounds, Tensor | None]:
    """The network, raw inputs to logits (None where gradients cannot pass), bounds, some inputs."""
    from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
    from art.estimators.classification import PyTorchClassifier

    from art_lfr.art.classifier import ClassifierAdapter

    if not isinstance(classifier, PyTorchClassifier):
        raise WrongTypeError(
            f"model is a {type(classifier).__name__}; allowed: torch.nn.Module, "
            "art.estimators.classification.PyTorchClassifier or a subclass"
        )
    if classifier.optimizer is None:
        findings.append(
            Finding(
                "classifier.optimizer",
                "there is no optimizer, so the trainer cannot change any weight",
                "PyTorchClassifier(..., optimizer=torch.optim.SGD(model.parameters(), lr=0.1))",
            )
        )
    if classifier.clip_values is None:
        findings.append(
            Finding(
                "classifier.clip_values",
                "no valid range is known, so the ball reaches beyond real inputs",
                "PyTorchClassifier(..., clip_values=(0.0, 1.0)), in the units of x",
                "warning",
            )
        )
    defences = classifier.preprocessing_operations
    blocking = [d for d in defences if not isinstance(d, PreprocessorPyTorch)]
    for defence in blocking:
        findings.append(
            Finding(
                f"preprocessing defence {type(defence).__name__}",
                "no gradient passes through it",
                "take its PyTorch version (a PreprocessorPyTorch), or leave it out",
            )
        )
    try:
        adapter = ClassifierAdapter(classifier)
    except ValueError as error:
        if not blocking:
            problem, _, fix = str(error).partition("; ")
            findings.append(Finding("classifier", problem, fix))
        return classifier.model, None, classifier.clip_values, None
    if classifier.optimizer is not None:
        try:
            adapter.check_optimizer()
        except (ValueError, TypeError) as error:
            problem, _, fix = str(error).partition("; ")
            findings.append(Finding("classifier.optimizer", problem, fix))
    return adapter.network, adapter.module, adapter.bounds, adapter.random_inputs(PROBED)


def look_at_labels(probe: Probe, x: Tensor, y: object) -> Iterator[Finding]:
    """Labels that the model has no class for, or that start at 1."""
    logits = probe.logits()
    classes = 0 if logits is None or logits.dim() != 2 else logits.shape[1]
    if classes < 2:
        return
    try:
        labels = class_labels("y", y, len(x))
    except (ValueError, TypeError) as error:
        problem, _, fix = str(error).partition("; ")
        yield Finding("labels", problem, fix)
        return
    columns = as_tensor("y", y).shape[1:] or (1,)
    low, high = int(labels.min()), int(labels.max())
    if low == 1 and high == classes:
        yield Finding("labels", f"y has labels from 1 to {high}", "y - 1: labels start at 0")
    elif columns[0] not in (1, classes):
        yield Finding(
            "labels",
            f"y has one-hot rows of {columns[0]} classes, and the model {classes} outputs",
            f"rows of shape (N, {classes}), or as many outputs as there are classes",
        )
    elif low < 0 or high >= classes:
        yield Finding(
            "labels",
            f"y has labels from {low} to {high}, and the model {classes} classes",
            f"labels from 0 to {classes - 1}, or as many outputs as there are classes",
        )
    elif low > 0 and len(labels) >= 10 * classes:
        yield Finding(
            "labels",
            f"y has no label below {low}, in {len(labels)} samples of {classes} classes",
            "y - 1, if the labels start at 1",
            "warning",
        )


def _outputs(probe: Probe, loss: object) -> Iterator[Finding]:
    """Outputs that are not what the loss takes them for."""
    logits = probe.logits()
    if logits is None or logits.dim() != 2 or not bool(logits.isfinite().all()):
        if logits is not None and not bool(logits.isfinite().all()):
            problem = "it returns NaN or infinite values for x"
            yield Finding("model", problem, "look for the layer that does; load other weights")
        return
    if not logits.is_floating_point():
        yield Finding(
            "outputs",
            f"they are of type {logits.dtype}, through which no gradient passes",
            "floating logits",
        )
        return
    tolerance = 64 * torch.finfo(probe.x.dtype).eps
    unit = bool(((logits >= 0) & (logits <= 1)).all())
    sums = (logits.sum(dim=1) - 1).abs().max() < tolerance
    probabilities = logits.shape[1] > 1 and unit and bool(sums)
    if isinstance(loss, nn.CrossEntropyLoss) and probabilities:
        yield Finding(
            "outputs",
            "they are probabilities (each row sums to 1), which CrossEntropyLoss takes for logits: "
            "a second softmax, with small gradients",
            "leave out the last softmax",
        )
    elif isinstance(loss, nn.CrossEntropyLoss) and logits.shape[1] > 1 and unit and len(logits) > 1:
        yield Finding(
            "outputs",
            "all are between 0 and 1, as after a sigmoid; CrossEntropyLoss takes them for logits",
            "leave out the last sigmoid",
            "warning",
        )
    elif isinstance(loss, nn.BCEWithLogitsLoss) and unit and len(logits) > 1:
        yield Finding(
            "outputs",
            "all are between 0 and 1, as after a sigmoid, and BCEWithLogitsLoss has one of its own",
            "leave out the last sigmoid, or take BCELoss",
            "warning",
        )
    elif isinstance(loss, nn.NLLLoss) and not bool(
        logits.logsumexp(dim=1).abs().max() < tolerance * max(1.0, float(logits.abs().max()))
    ):
        yield Finding(
            "outputs",
            "they are no log-probabilities, which NLLLoss takes them for",
            "a last LogSoftmax(dim=1), or CrossEntropyLoss",
        )


def _batch_norm(
    network: nn.Module,
    statistics: Mapping[str, nn.Module],
    batch_size: int,
    trained: Collection[nn.Parameter],
) -> Iterator[Finding]:
    """Layers that couple the samples of a batch: BatchNorm of any class."""
    kept = {id(module) for module in kept_in_eval_mode(network, trained)}
    of_training = {id(parameter) for parameter in trained if parameter.requires_grad}
    for name, module in statistics.items():
        layer = f"{name or 'model'} ({type(module).__name__})"
        if getattr(module, "track_running_stats", True) is False:
            yield Finding(
                layer,
                "it uses the statistics of its batch in eval mode too, so that the gradient at a "
                "sample depends on the others",
                "track_running_stats=True, or GroupNorm",
            )
        if id(module) in kept:
            continue
        if batch_size < TINY_BATCH:
            yield Finding(
                layer,
                f"its statistics of batch_size {batch_size} are mostly noise",
                f"batch_size of at least {TINY_BATCH}, or GroupNorm",
                "error" if batch_size == 1 else "warning",
            )
        own = list(module.parameters())
        if own and not any(id(parameter) in of_training for parameter in own):
            yield Finding(
                layer,
                "its parameters are frozen, but it is in train mode: its running statistics will "
                "move",
                f"{name}.eval() too, which training then leaves as it is",
                "warning",
            )
        elif network.training and not module.training:
            yield Finding(
                layer,
                "it is in eval mode, but has parameters that are trained: training puts it in "
                "train mode, and its running statistics will move",
                f"{name}.requires_grad_(False) too, where it is to stay as it is",
                "warning",
            )


def _try(probe: Probe, estimator: str) -> Iterator[Finding]:
    """What shows only when the network runs."""
    for layer in probe.random_layers(training=True):
        yield Finding(
            layer,
            "it draws random numbers in training; the clean pass and the penalty's passes share "
            "its masks, so the penalty is that of one mask, not of their mean",
            "nothing where that is meant; else a rate of 0",
            "warning",
        )
    for layer in probe.random_layers(training=False):
        yield Finding(
            layer,
            "it draws random numbers in eval mode, so that the ascent follows noise",
            "make it deterministic in eval mode",
        )
    yield from _gradients(probe, estimator)


def _gradients(probe: Probe, estimator: str) -> Iterator[Finding]:
    """First and second derivatives."""
    if (failure := probe.run_error()) is not None:
        problem = f"it does not run on x ({failure})"
        yield Finding("model", problem, "match x and the model")
        return
    broken = False
    for layer, reason in probe.without_derivative(1):
        broken = True
        yield Finding(
            layer,
            f"no gradient passes through it ({reason})",
            "take out detach(), no_grad(), rounding or NumPy code; for an RNN on a GPU, run it "
            "inside torch.backends.cudnn.flags(enabled=False)",
        )
    if broken or estimator != "exact":
        return
    for layer, reason in probe.without_derivative(2):
        broken = True
        yield Finding(
            layer,
            f"it has no second derivative ({reason})",
            'estimator="finite-difference"; or, for attention, run it inside '
            "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)",
        )
    if not broken and probe.is_piecewise_linear():
        yield Finding(
            "activations",
            "the network is piecewise linear in x (ReLU, max-pooling), and its exact Hessian is "
            "blind to the kinks between the pieces",
            'estimator="finite-difference", or a smooth activation such as Softplus or GELU',
            "warning",
        )
