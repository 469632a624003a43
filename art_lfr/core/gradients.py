"""Gradients of the loss in the input, their differences, and gradients of gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.geometry import per_sample, sample_norm
from art_lfr.errors import UsageError

# A difference of two gradients below this many units in the last place of their largest entry is
# rounding of the backward pass, not curvature.
ROUNDING_ULPS = 16
# The nodes that torch puts in place of a missing derivative.
_NO_DERIVATIVE = ("torch::autograd::NotImplemented", "torch::autograd::Error")


def input_gradient(
    model: nn.Module, criterion: Criterion, x: Tensor, y: Tensor, *, create_graph: bool = False
) -> Tensor:
    """grad_x of each sample's loss, shape of x; with a graph through it where asked for.

    Where `create_graph`, x must require gradients already, and an operation without a second
    derivative raises RuntimeError.
    """
    with torch.enable_grad():
        if not create_graph:
            x = x.detach().requires_grad_(True)
        # The model gets a copy: its first layer may work in place.
        total = criterion.values(logits_of(model(x.clone())), y).sum()
        try:
            (gradient,) = torch.autograd.grad(total, x, create_graph=create_graph)
        except RuntimeError as error:
            if "does not require grad" in str(error) or "not have been used" in str(error):
                raise UsageError(
                    "model gives a loss without gradients in x; allowed: a differentiable model "
                    "(a detach(), a no_grad block or a conversion to NumPy cuts the graph)"
                ) from error
            raise
    if create_graph:
        _check_twice_differentiable(gradient)
    return gradient


def _check_twice_differentiable(gradient: Tensor) -> None:
    """Raise RuntimeError where an operation behind `gradient` has no derivative.

    Left to torch, the error comes in the backward pass of the user's loop. Or never: a
    `once_differentiable` function is an error in the derivative by parameters, but counts as a
    constant in that by x.
    """
    waiting, seen = [gradient.grad_fn], set[Node | None]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() in _NO_DERIVATIVE:
            raise no_second_derivative(f"{node.name()} behind the gradient")
        waiting.extend(following for following, _ in node.next_functions)


def significant_difference(a: Tensor, b: Tensor) -> Tensor:
    """a - b, with zeros where the difference is only rounding noise.

    Without this `sign` would turn noise into full steps wherever the loss is linear.
    """
    largest = torch.maximum(sample_norm(a, math.inf), sample_norm(b, math.inf)).to(a.dtype)
    noise = ROUNDING_ULPS * torch.finfo(a.dtype).eps * per_sample(largest, a)
    difference = a - b
    return torch.where(difference.abs() <= noise, torch.zeros_like(difference), difference)


def second_derivative(value: Tensor, x: Tensor) -> Tensor:
    """The gradient of `value`, itself made of gradients, in x.

    Raises RuntimeError with the fix where there is none.
    """
    try:
        (u,) = torch.autograd.grad(value, x, allow_unused=True)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise no_second_derivative(f"torch said: {str(error).splitlines()[0]}") from error
    return torch.zeros_like(x) if u is None else u


def no_second_derivative(reason: str) -> RuntimeError:
    """The error that names the fix where double back-propagation is impossible."""
    return RuntimeError(
        "estimator is 'exact', but a layer has no second derivative; use "
        f"estimator='finite-difference' ({reason})"
    )
