"""Temporary states of a module: evaluation, frozen parameters, protected buffers.

Each context manager restores every flag it touched, module by module, also when an exception
passes through: a user may have put some layers in eval mode or frozen some parameters on purpose.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from art_lfr.core.criterion import logits_of
from art_lfr.core.randomness import preserved_random_state
from art_lfr.errors import UsageError

# Two passes of one network may differ by so many units in the last place.
ROUNDING_ULPS = 64


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put the whole model in train or eval mode; restore each module's own flag afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    was_training = model.training
    try:
        model.train(training)
        yield
    finally:
        # First by `train`, for layers that do more in it than to set the flag (LoRA merges).
        model.train(was_training)
        for module, flag in flags:
            module.training = flag


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Leave `torch.inference_mode` (Lightning validates in it) and `no_grad` for a while."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave `torch.inference_mode`, where an input gradient cannot be taken, for `no_grad`."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        yield


def check_differentiable_weights(model: nn.Module, name: str) -> None:
    """Raise ValueError where weights were made in inference mode: no gradient passes by them."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise UsageError(
            f"{name} has parameters that were made in torch.inference_mode, by which no gradient "
            "passes; allowed: a model that is made, or loaded, outside it"
        )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Clear `requires_grad` of all parameters, so that no parameter gradient is computed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def protected_buffers(model: nn.Module) -> Iterator[None]:
    """Let forward passes update copies of the buffers, then put the originals back.

    Running statistics belong to the clean forward alone. The originals are swapped out, not
    overwritten afterwards, because autograd may hold them for the backward pass.
    """
    originals: list[tuple[nn.Module, str, Tensor]] = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and module.training
    ]
    try:
        for module, name, buffer in originals:
            module._buffers[name] = buffer.clone()
        yield
    finally:
        for module, name, buffer in originals:
            module._buffers[name] = buffer


@contextmanager
def batch_norm_mode(layers: Iterable[nn.Module], choice: str) -> Iterator[None]:
    """Run layers with running statistics as `choice` says: "train" or "eval".

    "train" keeps them as they are; "eval" makes them use their running statistics.
    """
    switched = [layer for layer in layers if layer.training] if choice == "eval" else []
    try:
        for layer in switched:
            layer.training = False
        yield
    finally:
        for layer in switched:
            layer.training = True


def normalisation_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of torch that couple the samples of a batch or keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]


class ModeComparison:
    """What a model does otherwise in its present mode than in eval mode: looked at, remembered.

    It looks in the first pass, in the first of another model, after a mode has been changed, and
    after `forget`. A copy, and what a pickle gives, has seen nothing yet.

    Attributes:
        differs: Whether the outputs depend on the mode, random masks apart.
        statistics: The modules that use statistics of the batch and move running ones: BatchNorm
            of any class, known by the floating buffers that change.
    """

    def __init__(self) -> None:
        self.differs = False
        self.statistics: list[nn.Module] = []
        self._model: Callable[[], nn.Module | None] = lambda: None
        self._flags: list[bool] = []

    def __reduce__(self) -> tuple[type[ModeComparison], tuple[()]]:
        return type(self), ()

    def forget(self) -> None:
        """Look again in the next pass; until then nothing is known to differ."""
        self._flags, self.differs, self.statistics = [], False, []

    def clean_pass(self, model: nn.Module, x: Tensor) -> Tensor:
        """The logits of x."""
        flags = [module.training for module in model.modules()]
        if self._model() is model and self._flags == flags:
            return logits_of(model(x))
        before = [(module, name, buffer.clone()) for module, name, buffer in _buffers(model)]
        outputs = logits_of(model(x))
        self._model, self._flags = weakref.ref(model), flags
        moved = [m for m, name, value in before if not _same(m._buffers[name], value)]
        by_class = [layer for layer in normalisation_layers(model) if layer.training]
        self.statistics = list(dict.fromkeys([*by_class, *moved]))
        # Where modules of torch depend on their mode, they draw masks or move statistics.
        known = all(type(m).__module__.startswith("torch.nn.modules.") for m in model.modules())
        self.differs = bool(self.statistics) or not (known or _same_in_eval(model, x, outputs))
        return outputs


def _buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """The floating buffers of modules in train mode; those of torch's own layers are known."""
    for module in model.modules():
        if module.training and not isinstance(module, _NormBase):
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.is_floating_point():
                    yield module, name, buffer


def _same(now: Tensor | None, before: Tensor) -> bool:
    return now is not None and now.shape == before.shape and torch.equal(now, before)


def _same_in_eval(model: nn.Module, x: Tensor, outputs: Tensor) -> bool:
    """Whether eval mode gives the same logits of x, up to rounding."""
    with torch.no_grad(), preserved_random_state(x.device), mode(model, training=False):
        other = logits_of(model(x.clone()))
    if other.shape != outputs.shape:
        return False
    # Kernels of eval mode (attention) round otherwise.
    rounding = ROUNDING_ULPS * torch.finfo(dtype_of(model)).eps
    return torch.allclose(other, outputs.detach(), rtol=rounding, atol=rounding, equal_nan=True)


@contextmanager
def training_mode(
    model: nn.Module, network: nn.Module, trained: Iterable[nn.Parameter]
) -> Iterator[None]:
    """Train mode, but for what the user has frozen and put in eval mode; flags come back.

    `network` is the user's part of `model`, `trained` what the optimizer changes. A module in eval
    mode stays there where nothing inside it is trained: it, or a module around it, has parameters
    and all are frozen; or it has none while the network itself is in train mode, so that nobody but
    the user can have chosen it. (`predict` leaves the whole network in eval mode.)
    """
    kept = set(kept_in_eval_mode(network, trained))
    with mode(model, training=True):
        # A network's own `train` may leave parts of it in eval mode: that stands.
        others = [(module, module.training) for module in model.modules() if module not in kept]
        for module in kept:
            module.eval()  # for layers that do more in it than to set the flag
        for module, flag in others:
            module.training = flag
        yield


def kept_in_eval_mode(network: nn.Module, trained: Iterable[nn.Parameter]) -> Iterator[nn.Module]:
    """The modules that training leaves in eval mode; see `training_mode`."""
    of_optimizer = {id(p) for p in trained if p.requires_grad}

    def walk(module: nn.Module, inside_frozen: bool) -> Iterator[nn.Module]:
        parameters = list(module.parameters())
        frozen_part = inside_frozen or (
            bool(parameters) and not any(id(p) in of_optimizer for p in parameters)
        )
        if not module.training and (frozen_part or (network.training and not parameters)):
            yield module
        for child in module.children():
            yield from walk(child, frozen_part)

    yield from walk(network, False)


def device_of(model: nn.Module, fallback: Tensor) -> torch.device:
    """The device of the model's first parameter, or that of `fallback` where it has none."""
    parameter = next(model.parameters(), None)
    return fallback.device if parameter is None else parameter.device


def default_device() -> torch.device:
    """The current GPU where there is one, as ART's classifiers choose by themselves."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type of the model's first floating parameter, or float32 where it has none."""
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(floating, torch.float32)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
