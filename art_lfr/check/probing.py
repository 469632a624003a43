"""Trying a network on a few samples, module by module: both derivatives, and randomness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_unflatten

from art_lfr.core.criterion import logits_of
from art_lfr.core.modes import ModeComparison, frozen, mode, protected_buffers
from art_lfr.core.randomness import RandomState, preserved_random_state

Hook = Callable[..., None]


class Call(NamedTuple):
    """One call of a module, and its arguments."""

    module: nn.Module
    inputs: tuple[Any, ...]
    keywords: dict[str, Any]


class Probe:
    """Runs a model on x, shape (N, ...), and traces what happens to its innermost modules.

    `network` is the part whose module names a user knows. Every run leaves modes, flags, buffers
    and the global random state as found.
    """

    def __init__(self, model: nn.Module, network: nn.Module, x: Tensor) -> None:
        self.model = model
        self.network = network
        self.x = x
        names = {id(m): n for n, m in network.named_modules()}
        self._names = {
            id(m): names.get(id(m)) or f"model {type(m).__name__}" for m in model.modules()
        }
        self._depth = {id(m): i for i, m in enumerate(model.modules())}

    def run_error(self) -> str | None:
        """The first line of the error with which the model refuses x, or None."""
        try:
            with self._preserved(training=False), torch.no_grad():
                logits_of(self.model(self.x))
        except Exception as error:  # the user has to see whatever the model's forward raises
            return _first_line(error)
        return None

    def logits(self) -> Tensor | None:
        """The logits of x in eval mode, on the CPU, or None where the model refuses x."""
        try:
            with self._preserved(training=False), torch.no_grad():
                return logits_of(self.model(self.x.clone())).cpu()
        except Exception:  # `run_error` reports it
            return None

    def layers_with_statistics(self) -> dict[str, nn.Module]:
        """BatchNorm of torch, and modules whose floating buffers move in training, by name."""
        comparison, moved = ModeComparison(), set[nn.Module]()
        with self._preserved(training=True), torch.no_grad():
            try:
                comparison.clean_pass(self.model, self.x.clone())
                moved = set(comparison.statistics)
            except Exception:  # `run_error` reports it, or a BatchNorm has one value only
                pass
        return {
            name: module
            for name, module in self.network.named_modules()
            if module in moved or isinstance(module, _BatchNorm)
        }

    def random_layers(self, *, training: bool) -> list[str]:
        """The innermost modules that draw from the global generators in a forward pass."""
        drawing: dict[int, nn.Module] = {}
        before: list[RandomState] = []

        def enter(module: nn.Module, *_: Any) -> None:
            before.append(RandomState.capture(self.x.device))

        def leave(module: nn.Module, *_: Any) -> None:
            if RandomState.capture(self.x.device).differs_from(before.pop()):
                drawing[id(module)] = module

        with self._preserved(training=training), torch.no_grad(), self._hooks(enter, leave):
            try:
                self.model(self.x)
            except Exception:  # `run_error` reports it
                return []
        return self._innermost(drawing)

    def is_piecewise_linear(self) -> bool:
        """Whether the logits have second derivative 0 at x, but not one gradient everywhere."""
        with self._preserved(training=False):
            gradients = []
            for point in (self.x, self.x.flip(0) * 0.5):
                point = point.clone().requires_grad_(True)
                logits = logits_of(self.model(point))
                (g,) = torch.autograd.grad(_weighted_sum([logits]), point, create_graph=True)
                gradients.append(g.detach())
                if g.requires_grad:
                    (u,) = torch.autograd.grad(_weighted_sum([g]), point, allow_unused=True)
                    if u is not None and bool((u != 0).any()):
                        return False
        return not torch.allclose(gradients[0], gradients[1])

    def without_derivative(self, order: int) -> Iterator[tuple[str, str]]:
        """The innermost modules without a first or second derivative, each with the reason.

        The whole model is tried in both modes, and its modules where it fails.
        """
        reported: set[str] = set()
        for training in (False, True):
            with self._preserved(training=training):
                if (reason := _failure(Call(self.model, (self.x,), {}), order)) is None:
                    continue
                failing: dict[int, nn.Module] = {}
                reasons: dict[str, str] = {}
                for call in self._calls():
                    if (failure := _failure(call, order)) is not None:
                        failing[id(call.module)] = call.module
                        reasons[self._name(call.module)] = failure
            for layer in self._innermost(failing) or [self._name(self.model)]:
                if layer not in reported:
                    reported.add(layer)
                    yield layer, reasons.get(layer, reason)

    def _calls(self) -> list[Call]:
        """Every call of a module in one forward pass of the model."""
        calls: list[Call] = []

        def enter(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            calls.append(Call(module, inputs, keywords))

        with torch.no_grad(), self._hooks(enter, None):
            self.model(self.x)
        return calls

    def _innermost(self, modules: dict[int, nn.Module]) -> list[str]:
        """Names of those that hold none of the others, in the order of the model."""
        innermost = [
            module
            for module in modules.values()
            if not any(id(inner) in modules for inner in module.modules() if inner is not module)
        ]
        return [self._name(m) for m in sorted(innermost, key=lambda m: self._depth[id(m)])]

    def _name(self, module: nn.Module) -> str:
        name = self._names[id(module)]
        return name if name.startswith("model ") else f"{name} ({type(module).__name__})"

    @contextmanager
    def _preserved(self, *, training: bool) -> Iterator[None]:
        with (
            preserved_random_state(self.x.device),
            mode(self.model, training=training),
            frozen(self.model),
            protected_buffers(self.model),
            torch.enable_grad(),
        ):
            yield

    @contextmanager
    def _hooks(self, enter: Hook, leave: Hook | None) -> Iterator[None]:
        with ExitStack() as stack:
            for module in self.model.modules():
                handle = module.register_forward_pre_hook(enter, with_kwargs=True)
                stack.callback(handle.remove)
                if leave is not None:
                    stack.callback(module.register_forward_hook(leave).remove)
            yield


def _failure(call: Call, order: int) -> str | None:
    """None, or why the outputs of the call have no derivative of order 1 or 2 in its inputs."""
    try:
        inputs, outputs = _run(call)
        if not inputs or not outputs:
            return None
        if order == 2:
            # Squares, because a loss is curved: a once-differentiable function complains only
            # where the gradient that comes in can be differentiated, and only in a full backward.
            outputs = [output.square() for output in outputs]
        gradients = torch.autograd.grad(
            _weighted_sum(outputs), inputs, create_graph=order == 2, allow_unused=True
        )
        curved = [g for g in gradients if g is not None and g.requires_grad]
        if curved:
            torch.autograd.backward(_weighted_sum(curved))
    except RuntimeError as error:
        if order == 1 and "does not require grad" in str(error):
            return "its output is cut off from its input"
        return _first_line(error)
    if order == 1 and not any(g is not None and bool((g != 0).any()) for g in gradients):
        return "the gradient is 0 for every sample"
    return None


def _run(call: Call) -> tuple[list[Tensor], list[Tensor]]:
    """Call the module on fresh leaves; its floating inputs and floating outputs."""
    values, shape = tree_flatten((call.inputs, call.keywords))
    for index, value in enumerate(values):
        if isinstance(value, Tensor) and value.is_floating_point():
            values[index] = value.detach().clone().requires_grad_(True)
    leaves = [value for value in values if isinstance(value, Tensor) and value.requires_grad]
    # An in-place layer may not write to a leaf that needs a gradient.
    safe = [
        value * 1 if isinstance(value, Tensor) and value.requires_grad else value
        for value in values
    ]
    inputs, keywords = tree_unflatten(safe, shape)
    outputs = call.module(*inputs, **keywords)
    results, _ = tree_flatten(getattr(outputs, "logits", outputs))
    return leaves, [out for out in results if isinstance(out, Tensor) and out.is_floating_point()]


def _weighted_sum(tensors: list[Tensor]) -> Tensor:
    """A sum with unequal weights, so that softmax and normalisation do not make it constant."""
    total = tensors[0].new_zeros(())
    for tensor in tensors:
        weights = torch.linspace(0.5, 1.5, max(tensor.numel(), 1), device=tensor.device)
        total = total + (tensor.flatten() * weights.to(tensor.dtype)).sum()
    return total


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
