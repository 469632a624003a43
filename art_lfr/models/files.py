"""Networks in files that say what they are: how to build one, how it was trained, how good it is.

`save_network` writes such a file, `load_network` makes the network from it, `network_info` reads
what it says. It is a safetensors file with one JSON record in its metadata, and holds no code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.core.imports import named_object
from art_lfr.core.randomness import preserved_random_state, seed_global_generators
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.models.networks import BUILT_IN
from art_lfr.storage.description import tensors_in
from art_lfr.storage.files import as_path, check_output
from art_lfr.storage.info import ENDING, NetworkInfo, network_info
from art_lfr.storage.tensor_files import check_storable, load_weights, write_safetensors

# Whose versions a file has.
LIBRARIES = ("art-lfr", "torch", "adversarial-robustness-toolbox")


class Preprocessed(nn.Module):
    """Raw inputs to logits: network((x - mean) / std), as an ART classifier does it.

    `mean` and `std` broadcast against one input.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Any, std: Any) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32))

    def forward(self, x: Tensor) -> Any:
        """Map (N, ...) to what the network gives."""
        return self.network((x - self.mean) / self.std)


def make_network(model: str | Callable[[], object], seed: int = 0, classes: int = 10) -> nn.Module:
    """A built-in network, or what `module.path:factory` or a callable makes, with fresh weights.

    `seed` fixes the weights, `classes` the number of outputs of a built-in network. The current
    directory can be imported from, as with `python -m`. The global random state is left as found.

    Raises ValueError or TypeError for any other name, and for a factory that makes no module.
    """
    allowed = f"{', '.join(BUILT_IN)}, or module.path:factory"
    factory: object = model
    if isinstance(model, str):
        if model in BUILT_IN:
            return BUILT_IN[model](seed, classes=classes)
        if ":" not in model:
            raise UsageError(f"model is {model!r}; allowed: {allowed}")
        try:
            factory = named_object(model)
        except ValueError as error:
            raise UsageError(f"model is {error}; allowed: {allowed}") from error
    if isinstance(factory, nn.Module):
        raise WrongTypeError(
            f"model is a network, a {type(factory).__name__}; allowed: what makes one, such as its "
            "class"
        )
    if not callable(factory):
        raise UsageError(f"model is {model!r}, which is not callable; allowed: {allowed}")
    # A factory draws its first weights from the global generators.
    with preserved_random_state(torch.device("cpu")):
        seed_global_generators(seed)
        try:
            network = factory()
        except Exception as error:  # of a user's own code
            raise UsageError(
                f"model is {model!r}, which fails ({type(error).__name__}: {error}); allowed: a "
                "factory that takes no arguments and returns a torch.nn.Module"
            ) from error
    if not isinstance(network, nn.Module):
        raise WrongTypeError(
            f"model is {model!r}, which returned a {type(network).__name__}; allowed: a factory "
            "that returns a torch.nn.Module"
        )
    return network


def save_network(path: str | Path, network: nn.Module, info: NetworkInfo) -> Path:
    """Write a network with what is known of it to a .safetensors file, atomically.

    Where `info.model` is None and the network is a built-in one, its name is found. Returns the
    path. `versions` are those of now.

    Raises:
        ValueError: For another ending, for an `info.model` that makes another network, and for a
            network with a state that safetensors cannot hold.
        PlaceError: An OSError, where no file can be written there.
    """
    target = check_output(path, "path", (ENDING,))
    check_savable(network, info.model, info.classes)
    model = _built_in_name(network, info.classes) if info.model is None else info.model
    versions = {}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    metrics = {name: value for name, value in info.metrics.items() if math.isfinite(value)}
    told = dataclasses.replace(info, model=model, metrics=metrics, versions=versions)
    write_safetensors(target, tensors_in(network), dataclasses.asdict(told))
    return target


def check_savable(network: nn.Module, model: str | None = None, classes: int | None = None) -> None:
    """Raise ValueError where `save_network` would, but for the path: for use before training."""
    check_storable(network.state_dict())
    if model is None:
        return
    made = make_network(model, classes=classes or 10)
    shapes = [{name: v.shape for name, v in tensors_in(m).items()} for m in (network, made)]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"model is {model!r}, which makes a network with other weights; allowed: what makes "
            "the network that is saved, or None"
        )


def _built_in_name(network: nn.Module, classes: int | None) -> str | None:
    """The built-in network with these very layers, or None."""
    if classes is None or classes < 2:
        return None
    shown, names = repr(network), network.state_dict().keys()
    for name, factory in BUILT_IN.items():
        made = factory(classes=classes)
        if repr(made) == shown and made.state_dict().keys() == names:
            return name
    return None


def load_network(path: str | Path, *, model: str | Callable[[], object] | None = None) -> nn.Module:
    """The trained network of a file, in eval mode: raw inputs to logits. Needs no ART.

    Preprocessing by mean and standard deviation is a part of it (`Preprocessed`).

    Args:
        path: A file of `art-lfr train`, of the trainer's `save`, of `save_network`, or of the
            repository's `networks/` folder; or other weights (see `load_weights`) with `model`.
        model: How to build the network: a built-in name, "module.path:factory", or a class or
            function without arguments. None: as the file says. A factory that a file names is
            imported and called: it must be a class of networks or a function of that package, and
            none of the standard library.

    Returns:
        The network, on the CPU; `.to("cuda")` moves it to a GPU.

    Example::

        from art_lfr.models import load_network, network_info

        path = "networks/digits-0.1.safetensors"
        network, eps = load_network(path), network_info(path).eps

    Raises:
        FileNotFoundError: Where there is no file.
        ValueError: Where it is damaged, does not fit, or does not say which network it holds.
    """
    info = network_info(path) or NetworkInfo()
    name = model_of(path, info) if model is None else model
    network = make_network(name, classes=info.classes or 10)
    return filled(network, path, info).eval()


def model_of(path: str | Path, info: NetworkInfo) -> str:
    """How a file says that its network is built; ValueError as of `factory_of`."""
    factory_of(path, info)
    return str(info.model)


def factory_of(path: str | Path, info: NetworkInfo) -> Callable[..., nn.Module]:
    """What makes the network of a file, by what the file says.

    Raises ValueError where it does not say so, and where it names what is not there or what may
    be something else than a maker of networks: a file must not have code run.
    """
    if info.model in BUILT_IN:
        return BUILT_IN[info.model]
    if info.model is None:
        raise UsageError(
            f"model is None, and {path} does not say which network it holds; allowed: one of "
            f"{', '.join(BUILT_IN)}, or module.path:factory"
        )
    module, colon, _ = info.model.partition(":")
    package, made = module.partition(".")[0], None
    if colon and package not in sys.stdlib_module_names:
        try:
            made = named_object(info.model)
        except ValueError as error:
            raise UsageError(
                f"{path} holds a network of {error}; allowed: a module that can be imported from "
                "here, or a model that you name yourself"
            ) from error
    if isinstance(made, FunctionType) or (isinstance(made, type) and issubclass(made, nn.Module)):
        factory: Callable[..., nn.Module] = made
        if factory.__module__.partition(".")[0] == package:
            return factory
    raise UsageError(
        f"{path} holds a network of {info.model!r}, which is no class of networks and no function "
        "of a module of yours; allowed: a model that you name yourself"
    )


def filled(network: nn.Module, path: str | Path, info: NetworkInfo) -> nn.Module:
    """The network with the weights of a file, behind the preprocessing that its record names."""
    load_weights(network, as_path("path", path))
    if not info.preprocessing:
        return network
    try:
        return Preprocessed(network, info.preprocessing["mean"], info.preprocessing["std"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} has the preprocessing {dict(info.preprocessing)!r:.80}; allowed: mean and std"
        ) from error
