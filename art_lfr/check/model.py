"""What in a model, a classifier or data does not go with LFR, and the fix: `check_model`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from art_lfr.check.probing import Probe
from art_lfr.core.arguments import as_tensor, check_choice, check_integer
from art_lfr.core.geometry import Bounds, Box
from art_lfr.core.modes import device_of, dtype_of
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
        yield Finding(
            "data",
            f"x has integers ({x.dtype})",
            "x.astype('float32') / 255 with bounds (0, 1), or floats with clip_values (0, 255)",
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
    elif math.isfinite(top) and top > 2 and high <= 1:
        yield Finding(
            "data",
            f"x has no value above {high:g} where the bounds reach {top:g}",
            "one unit for x, bounds and eps: clip_values (0, 1) for x in [0, 1]",
            "warning",
        )


# A BatchNorm's statistics of fewer samples than this are mostly noise.
TINY_BATCH = 16
# Samples that are tried.
PROBED = 4


def check_model(
    model: object,
    x: Any = None,
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
    data = None if x is None else as_tensor("x", x).detach().cpu()
    if data is not None and (data.dim() < 2 or len(data) == 0):
        raise UsageError(f"x has shape {tuple(data.shape)}; allowed: (N, ...) with N >= 1")
    if data is not None and isinstance(model, nn.Module):
        Box.from_bounds(bounds, data.double())  # raises where they are no bounds
    findings: list[Finding] = []
    callable_model: nn.Module | None
    if isinstance(model, nn.Module):
        network, callable_model = model, model
        if data is None:
            problem = "no sample was given, so the layers were not tried"
            findings.append(Finding("data", problem, "pass x", "warning"))
    else:
        network, callable_model, bounds, drawn = _look_at_classifier(model, findings)
        data = drawn if data is None else data
    findings += _batch_norm(network, batch_size)
    if x is not None and data is not None:
        findings += look_at_data(data, bounds)
    if callable_model is not None and data is not None:
        findings += _try(callable_model, network, data[:PROBED], estimator)
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
    return adapter.network, adapter.module, adapter.bounds, adapter.random_inputs(PROBED)


def _batch_norm(network: nn.Module, batch_size: int) -> Iterator[Finding]:
    """Layers that couple the samples of a batch."""
    for name, module in network.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        kind = type(module).__name__
        if not module.track_running_stats:
            yield Finding(
                f"{name} ({kind})",
                "it uses the statistics of its batch in eval mode too, so that the gradient at a "
                "sample depends on the others",
                "track_running_stats=True, or GroupNorm",
            )
        if batch_size < TINY_BATCH:
            yield Finding(
                f"{name} ({kind})",
                f"its statistics of batch_size {batch_size} are mostly noise",
                f"batch_size of at least {TINY_BATCH}, or GroupNorm",
                "error" if batch_size == 1 else "warning",
            )


def _try(model: nn.Module, network: nn.Module, x: Tensor, estimator: str) -> Iterator[Finding]:
    """What shows only when the network runs."""
    probe = Probe(model, network, x.to(device_of(model, x), dtype_of(model)))
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
