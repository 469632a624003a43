"""A model under attack in one form, on raw inputs or on [0, 1], and which examples count."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from art_lfr.art.module import BoundsChoice, ModelAdapter
from art_lfr.art.module_or_classifier import adapter_of
from art_lfr.core.arguments import check_flag, check_integer, check_number, check_seed
from art_lfr.core.criterion import LossLike, logits_of
from art_lfr.core.geometry import Ball, Box, per_sample, sample_norm, wrong_unit
from art_lfr.core.modes import frozen, mode
from art_lfr.core.names import parse_norm
from art_lfr.core.processes import Processes
from art_lfr.core.randomness import RandomState, preserved_random_state
from art_lfr.core.samples import inputs_refused
from art_lfr.data import MOST_CHANNELS
from art_lfr.errors import UsageError
from art_lfr.storage.description import array, tensors_in

T = TypeVar("T")
# An example may leave the ball by this share of eps, and by this many units in the last place of
# the largest value for each coordinate that the norm sums over.
BALL_SLACK = 1e-4
ROUNDING_ULPS = 8


@dataclass(frozen=True)
class ThreatModel:
    """Perturbations with ||x' - x||_p <= eps, in raw units; p = 0 counts changed values.

    Raises ValueError or TypeError for anything but p in {0, 1, 2, inf} and eps > 0.
    """

    p: float
    eps: float

    def __post_init__(self) -> None:
        if self.p != 0:
            parse_norm(self.p)
        check_number("eps", self.eps, low_allowed=False)

    @property
    def label(self) -> str:
        """As printed: "Linf 0.3", "L2 2", "L0 12"."""
        return f"L{self.p:g} {self.eps:.4g}"

    def distance(self, adversarial: Tensor, x: Tensor) -> Tensor:
        """||adversarial - x||_p of each sample, shape (N,), in float64."""
        difference = adversarial.double() - x.double()
        if self.p == 0:
            return (difference != 0).flatten(1).sum(dim=1).double()
        return sample_norm(difference, self.p)

    def contains(self, adversarial: Tensor, x: Tensor) -> Tensor:
        """Whether each sample lies in the ball, shape (N,), up to rounding."""
        if self.p == 0:
            return self.distance(adversarial, x) <= self.eps
        scale = max(float(x.abs().max()), self.eps)
        summed = 1.0 if self.p == math.inf else x[0].numel() ** (1 / self.p)
        slack = BALL_SLACK * self.eps + ROUNDING_ULPS * torch.finfo(x.dtype).eps * scale * summed
        return self.distance(adversarial, x) <= self.eps + slack


class LogitsModule(nn.Module):
    """Raw inputs of any floating type to float32 logits of shape (N, classes)."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ...) to logits."""
        return logits_of(self.network(x.to(self.dtype))).float()


@dataclass(frozen=True)
class Target:
    """A model under attack: its logits from raw inputs, checked data, and the feasible ball.

    `x` (N, ...) and the index labels `y` (N,) lie on the CPU. `adapter` is the user's model.
    `progress` shows on a terminal what is at work. `processes` attack the model together: all call
    the same, with the same model, and each takes its batches.
    """

    module: nn.Module
    adapter: ModelAdapter
    x: Tensor
    y: Tensor
    ball: Ball
    classes: int
    device: torch.device
    batch_size: int
    seed: int
    progress: bool = False
    processes: Processes = field(default_factory=Processes.single)

    @property
    def threat(self) -> ThreatModel:
        """The ball as a threat model."""
        return ThreatModel(self.ball.p, self.ball.eps)

    def logits(self, x: Tensor) -> Tensor:
        """Logits of raw inputs, in eval mode, on the CPU."""

        def of_batch(rows: slice) -> Tensor:
            logits: Tensor = self.module(x[rows].to(self.device)).cpu()
            return logits

        with torch.no_grad():
            return torch.cat(self.dealt(len(x), of_batch))

    def dealt(
        self,
        count: int,
        work: Callable[[slice], T],
        skip: Callable[[slice], object] = lambda rows: None,
    ) -> list[T]:
        """`work(rows)` for each batch of `count` samples, in order; see `Processes.dealt`."""
        size = self.batch_size
        batches = [slice(first, min(first + size, count)) for first in range(0, count, size)]
        return self.processes.dealt(
            len(batches), lambda index: work(batches[index]), lambda index: skip(batches[index])
        )

    def correct(self, x: Tensor, y: Tensor) -> Tensor:
        """Whether each sample is classified as its label; logits that are NaN count as wrong."""
        return right(self.logits(x), y)


def right(logits: Tensor, y: Tensor) -> Tensor:
    """Whether logits (N, classes) name the labels; NaN names none."""
    return (logits.argmax(dim=1) == y) & ~logits.isnan().any(dim=1)


def make_target(
    model: object,
    x: Any,
    y: Any,
    *,
    eps: float | None,
    norm: float | str = math.inf,
    bounds: BoundsChoice = "auto",
    batch_size: int = 256,
    seed: int = 0,
    loss: LossLike = None,
    name: str = "model",
    progress: bool = False,
    processes: Processes | None = None,
) -> Target:
    """Check a model with its data and settings, and bring them into one form.

    A classifier's own `clip_values` and loss stand for `bounds` and `loss`, which must not say
    otherwise. `eps` is > 0, or None for a ball of radius 0, which nothing attacks. Of several
    `processes` the main one shows progress and warns. Raises TypeError and ValueError, naming the
    parameter.
    """
    processes = processes or Processes.single()
    check_number("eps", eps, low_allowed=False, optional=eps is None)
    p = parse_norm(norm)
    check_integer("batch_size", batch_size, low=1)
    check_seed("seed", seed)
    check_flag("verbose", progress)
    adapter = adapter_of(model, bounds=bounds, loss=loss, name=name)
    # Not in the model's type: the ball is around the user's x, which bfloat16 would move.
    inputs = adapter.inputs(x, dtype=torch.float32).cpu()
    device = adapter.device
    module = LogitsModule(adapter.module, adapter.dtype)
    classes = count_classes(module, inputs, device, name)
    box = adapter.box(inputs)
    if (warning := wrong_unit(float(eps or 0), p, box)) is not None and processes.main:
        warnings.warn(warning, UserWarning, stacklevel=4)  # past the decorator of what was called
    return Target(
        module=module,
        adapter=adapter,
        x=inputs,
        y=adapter.labels(y, len(inputs), classes),
        ball=Ball(float(eps or 0), p, box),
        classes=classes,
        device=device,
        batch_size=int(batch_size),
        seed=int(seed),
        progress=progress and processes.main,
        processes=processes,
    )


def judged_together(target: Target, judge: Callable[[Target], T]) -> T:
    """What `judge` finds of a target, in all its processes what it finds in the main one.

    A model that draws random numbers is judged by the main process alone: the numbers run on from
    batch to batch. Raises ValueError, in all, where model, data or settings differ between them.
    """
    processes = target.processes
    if processes.size == 1:
        return judge(target)
    processes.check_device(target.device, target.adapter.name)
    network = target.adapter.network
    for what, value in {
        "x": array(target.x),
        "y": array(target.y),
        "eps, norm, batch_size or seed": (
            *(target.ball.eps, target.ball.p),
            *(target.batch_size, target.seed),
        ),
        f"{target.adapter.name}, in its weights,": {
            name: array(tensor) for name, tensor in tensors_in(network).items()
        },
    }.items():
        processes.check_same(what, value)
    if processes.by_main(lambda: draws_random_numbers(target)):
        by_itself = replace(target, processes=Processes.single())
        return processes.by_main(lambda: judge(by_itself))
    return processes.from_main(judge(target))


def draws_random_numbers(target: Target) -> bool:
    """Whether a pass of the model draws from a global generator."""
    with preserved(target.module, target.device), torch.no_grad():
        before = RandomState.capture(target.device)
        target.module(target.x[:2].to(target.device, copy=True))
        return RandomState.capture(target.device).differs_from(before)


def count_classes(module: nn.Module, x: Tensor, device: torch.device, name: str = "model") -> int:
    """The number of logits; ValueError where the model takes no such inputs or gives no logits."""
    try:
        with preserved(module, device), torch.no_grad():
            logits = module(x[:2].to(device, copy=True))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        swapped = x.dim() == 4 and x.shape[3] <= MOST_CHANNELS < x.shape[1]
        hint = " (it looks like (N, H, W, C): try x.transpose(0, 3, 1, 2))" if swapped else ""
        raise inputs_refused("x", x, name, error, hint) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < 2:
        output = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"{name} gives {output} for {len(x[:2])} samples; allowed: a tensor of logits, shape "
            "(N, classes), at least two classes"
        )
    return logits.shape[1]


# How torch and ART complain of a model whose graph does not reach x.
WITHOUT_GRADIENT = (
    "does not require grad",
    "not have been used in the graph",
    "Gradient term in PyTorch model is `None`",
)


@contextmanager
def missing_gradient_named(what: str) -> Iterator[None]:
    """Raise UsageError where an attack, named by `what`, finds no gradient in x."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if not any(words in str(error) for words in WITHOUT_GRADIENT):
            raise
        raise UsageError(
            f"{what} needs the gradient in x that the model does not give; allowed: attacks "
            "without gradients, such as 'Square'"
        ) from error


@contextmanager
def preserved(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode without parameter gradients; modes, flags, `.grad` and random state come back.

    ART's attacks switch modes, clear `.grad` and draw from the global generators.
    """
    with (
        preserved_gradients(module.parameters()),
        preserved_random_state(device),
        mode(module, training=False),
        frozen(module),
    ):
        yield


@contextmanager
def untouched(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode with gradients in the inputs only; modes, flags, `.grad`, buffers come back.

    An attack that is told to run in train mode would update running statistics.
    """
    buffers = [
        (part._buffers, name, buffer)
        for part in module.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]
    try:
        for home, name, buffer in buffers:
            home[name] = buffer.clone()
        with preserved(module, device), torch.enable_grad():
            yield
    finally:
        for home, name, buffer in buffers:
            home[name] = buffer


@contextmanager
def preserved_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """No `.grad` for a while; the same tensors come back."""
    gradients = [(parameter, parameter.grad) for parameter in parameters]
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


def classifier_of(target: Target) -> Any:
    """The user's ART classifier, or one made around a module, or a network that ART cannot run."""
    from art.estimators.classification import PyTorchClassifier

    from art_lfr.art.classifier import ClassifierAdapter

    adapter, loss = target.adapter, nn.CrossEntropyLoss()
    if isinstance(adapter, ClassifierAdapter):
        if adapter.is_run_by_art(target.x):
            return adapter.classifier
        loss = adapter.classifier.loss

    box = target.ball.box
    bounded = bool(box.low.isfinite().any() or box.high.isfinite().any())
    with torch.cuda.device(target.device if target.device.type == "cuda" else -1):
        return PyTorchClassifier(
            target.module,
            loss=loss,
            input_shape=tuple(target.x.shape[1:]),
            nb_classes=target.classes,
            clip_values=(box.low.numpy(), box.high.numpy()) if bounded else None,
            device_type="gpu" if target.device.type == "cuda" else "cpu",
        )


class UnitBoxModule(nn.Module):
    """Inputs in [0, 1] to logits: the affine map onto the valid box, then the model."""

    def __init__(self, network: nn.Module, low: Tensor, width: float) -> None:
        super().__init__()
        self.network = network
        self.low = low
        self.width = width

    def forward(self, unit: Tensor) -> Tensor:
        """Map (N, ...) in [0, 1] to logits.

        The gradient comes back in the order of `unit`, whatever that of the weights: attack
        libraries look at it with `view`, which channels-last order does not allow.
        """
        unit = unit.flatten(1).reshape(unit.shape)
        logits: Tensor = self.network(self.low.to(unit.device) + self.width * unit)
        return logits


@dataclass(frozen=True)
class UnitBox:
    """raw = low + width * unit. One width for all features, so that balls stay balls."""

    low: Tensor
    width: float

    @classmethod
    def of(cls, box: Box, who: str, instead: str) -> UnitBox:
        """The map of a box.

        Raises ValueError where the box is infinite or not equally wide for all features; `who`
        names what needs the map, `instead` what the user can do.
        """
        widths = (box.high - box.low).flatten()
        width = float(widths[0])
        if not math.isfinite(width) or bool((widths - width).abs().max() > 1e-6 * width):
            bounds = f"[{float(box.low.min()):g}, {float(box.high.max()):g}]"
            raise UsageError(
                f"bounds is {bounds}, but {who} needs finite bounds, equally wide for all "
                f"features; allowed: such bounds (clip_values of a classifier), or {instead}"
            )
        return cls(box.low, width)

    def to_unit(self, raw: Tensor) -> Tensor:
        """Raw inputs as values in [0, 1]."""
        return ((raw - self.low.to(raw.device)) / self.width).clamp(0, 1)

    @torch.no_grad()
    def to_example(self, unit: Tensor, start: Tensor, network: nn.Module, box: Box) -> Tensor:
        """Values in [0, 1] as raw inputs inside the box, of the class that the attack saw.

        `network` maps raw inputs to logits; `start` are the raw inputs that the attack began from:
        a coordinate that it did not touch keeps its value, free of the rounding of the map. Back in
        these exact values an example that was just over the boundary may be just before it again:
        then it stays what the attack saw, all its coordinates off by a rounding.
        """
        seen = box.to(unit.device).clip(self.low.to(unit.device) + self.width * unit)
        raw = torch.where(unit == self.to_unit(start), start, seen)
        if torch.equal(raw, seen):
            return raw
        lost = network(raw).argmax(dim=1) != network(seen).argmax(dim=1)
        return torch.where(per_sample(lost, raw), seen, raw)

    def module(self, network: nn.Module) -> UnitBoxModule:
        """The network on inputs in [0, 1]."""
        return UnitBoxModule(network, self.low, self.width)
