"""What a thing is, in plain values: by these a run, an evaluation or a tuning is known again.

A description says what a thing computes, not how it prints. It is made of JSON types, so that a
file can keep it and a difference can be named.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import inspect
import math
import os
import re
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from art_lfr.storage.records import digest

Plain: TypeAlias = Any
# Where the attack libraries have their attacks; first those whose attacks other libraries wrap.
ATTACKS = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox.attacks",
    "art": "art.attacks",
}
# Packages that are called otherwise where they come from; another distribution is called art.
DISTRIBUTIONS = {"art": "adversarial-robustness-toolbox"}
# What changes nothing of what is computed.
SILENT = frozenset({"verbose", "summary_writer", "_summary_writer", "logger", "_logger", "device"})
# Longer sequences and texts are told apart by a hash, and arrays of more numbers.
LONGEST, FEW = 256, 8
# Where a module keeps its parts, and what depends on its use.
_INTERNAL = frozenset(vars(nn.Module())) | {
    *("_forward_hooks", "_forward_pre_hooks", "_is_torch_compile", "_compiled_call_impl"),
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_INSTALLED = tuple(
    {str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib")}
)
_HOME = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class Network:
    """A network to be described although it has a name; without its weights where they change."""

    module: nn.Module
    with_weights: bool = True


class Description:
    """Describes things, and remembers which libraries they came from.

    Args:
        names: Objects that stand by a name instead of a description, such as the model that an
            attack was made for; the parameters of such a model have names too.
    """

    def __init__(self, names: Mapping[str, object] | None = None) -> None:
        self._known: dict[int, Plain] = {}
        for name, item in (names or {}).items():
            self._known[id(item)] = f"the {name}"
            if isinstance(item, nn.Module):
                for part, parameter in item.named_parameters():
                    self._known[id(parameter)] = f"{_uncompiled(part)} of the {name}"
        self._names = dict(names or {})
        # An `id` may be used again once its object has gone.
        self._kept: list[object] = [*(names or {}).values()]
        self._libraries: set[str] = set()

    def of(self, value: Any) -> Plain:
        """Numbers and texts as they are, all else by its class and what it holds.

        A network stands by the class, the settings and the code of each layer, and its weights; a
        function of a library by its name, one of the user's by its code and what it takes from
        outside; an array by its values or, where there are many, by a hash of them.
        """
        if isinstance(value, enum.Enum):
            return str(value)
        if value is None or isinstance(value, bool):
            return value
        for kind in (int, float, str):  # what derives from them too, such as NumPy's
            if isinstance(value, kind):
                return _shortened(_finite(kind(value)))
        if id(value) in self._known:
            return self._known[id(value)]
        self._kept.append(value)
        self._known[id(value)] = f"the same {type(value).__name__}"  # where it holds itself
        plain = self._described(value)
        self._known[id(value)] = plain
        return plain

    def anew(self) -> Description:
        """One with the same names that has seen nothing yet."""
        return Description(self._names)

    def versions(self) -> dict[str, str]:
        """The libraries of all that has been described, and torch and NumPy, without build names.

        With a build for another device a run may go on.
        """
        packages = {"torch", "numpy", "art_lfr", *self._libraries} - sys.stdlib_module_names
        found = {name: number for package in packages for name, number in _versions(package)}
        found["python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
        return dict(sorted(found.items()))

    def _described(self, value: Any) -> Plain:
        if isinstance(value, np.generic):
            return self.of(value.item())
        if isinstance(value, np.ndarray) and value.dtype == object:
            return {**_form(value), "values": self.of(value.tolist())}
        if isinstance(value, np.ndarray | Tensor):
            return array(value)
        if isinstance(value, nn.Module):
            value = Network(value)
        if isinstance(value, Network):
            shown = array if value.with_weights else _form
            held = {name: shown(item) for name, item in tensors_in(value.module).items()}
            return {**self._network(value.module), **({"weights": held} if held else {})}
        if isinstance(value, Mapping):
            keys = [k if isinstance(k, str) else repr(self.of(k)) for k in value]
            return _shortened(dict(zip(keys, map(self.of, value.values()), strict=True)))
        if isinstance(value, Set):
            return _shortened(sorted((self.of(item) for item in value), key=repr))
        if isinstance(value, bytes | bytearray | range | slice | complex):
            return _shortened(repr(value))
        # One of the user's own may read a whole data set.
        if isinstance(value, list | tuple) or (
            isinstance(value, Sequence) and _is_installed(type(value))
        ):
            return _shortened([self.of(item) for item in value])
        if hasattr(type(value), "to_numpy"):  # of pandas
            return {"class": _named(type(value)), "values": self.of(value.to_numpy())}
        if isinstance(value, PurePath):
            return str(value)
        if isinstance(value, torch.dtype | torch.Size):
            return str(value)
        if isinstance(value, torch.device):
            return value.type
        if isinstance(value, torch.Generator):
            return {"seed": value.initial_seed(), "state": self.of(value.get_state())}
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            return {"partial": [self.of(part) for part in parts]}
        if isinstance(value, types.MethodType):
            return {"method": self.of(value.__func__), "of": self.of(value.__self__)}
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(
            inner := inspect.getattr_static(value, "__wrapped__", None), types.FunctionType
        ):
            return {"class": _named(type(value)), "function": self.of(inner)}
        if inspect.isroutine(value) or isinstance(value, types.ModuleType):
            return _named(value)
        return self._object(value)

    def _object(self, value: Any) -> Plain:
        """The class and the attributes, private ones too.

        Of an ART estimator what it is made of; of an optimizer and a scheduler how they were made,
        without where they stand.
        """
        held = attributes(value)
        if (names := getattr(type(value), "estimator_params", None)) is not None:
            held = {name: getattr(value, name, None) for name in names if name not in _ELSEWHERE}
        elif (names := getattr(type(value), "params", None)) and _is_installed(type(value)):
            # An ART preprocessor; beside these it keeps what it has computed.
            held = {n: getattr(value, n, None) for n in (*names, "apply_fit", "apply_predict")}
        elif isinstance(value, torch.optim.Optimizer):
            hooks = [
                hook
                for name, there in held.items()
                if name.startswith("_optimizer_") and isinstance(there, Mapping)
                for hook in there.values()
            ]
            # A library's keep nothing else, a user's may.
            own = {} if _is_installed(type(value)) else held
            held = {
                "groups": [_first_of(group) for group in value.param_groups],
                **({"hooks": hooks} if hooks else {}),
                **{name: item for name, item in own.items() if name not in _of_optimizers()},
            }
        elif isinstance(value, torch.optim.lr_scheduler.LRScheduler):
            held = {name: item for name, item in held.items() if name not in PROGRESS}
        described = {name: self.of(item) for name, item in held.items() if name not in SILENT}
        reduce: Any = type(value).__reduce__
        by_itself = reduce is not object.__reduce__
        if (by_itself or not held) and (state := self._reduced(value)) is not None:
            described["state"] = state
        code = {} if _is_installed(type(value)) else self._code(type(value))
        return {"class": self._class(type(value), deep=False), **described, **code}

    def _reduced(self, value: object) -> Plain:
        """What an object without attributes would be pickled as; None where it cannot be."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # locks, files and what a class of the user's raises
            return None
        if isinstance(reduced, str):
            return reduced
        made_by, arguments, state, items, entries = (*reduced, None, None, None)[:5]
        parts = [made_by, arguments, state, list(items or ()), list(entries or ())]
        return self.of(parts) if any(parts[1:]) else None

    def _network(self, network: nn.Module) -> Plain:
        """Each layer's class, settings, hooks and code; which names share a tensor; no weights."""
        layers = {
            _uncompiled(name) or "(root)": self._layer(layer)
            for name, layer in network.named_modules()
            if not hasattr(layer, "_orig_mod")  # a compiled one computes the same
        }
        first: dict[int, str] = {}
        tied = {}
        for name, item in network.named_parameters(remove_duplicate=False):
            if (other := first.setdefault(id(item), name)) != name:
                tied[name] = other
        hooks = {
            name: [self.of(hook) for hook in item._backward_hooks.values()]
            for name, item in network.named_parameters()
            if item._backward_hooks
        }
        more = {"tied": tied, "hooks of parameters": hooks}
        return {"layers": layers, **{name: part for name, part in more.items() if part}}

    def _layer(self, layer: nn.Module) -> dict[str, Plain]:
        if isinstance(layer, torch.jit.ScriptModule):
            return self._script(layer)
        plain: dict[str, Plain] = {"class": self._class(type(layer), deep=False)}
        for name, item in vars(layer).items():
            # What has a graph is a result of a pass that the layer has kept.
            result = isinstance(item, Tensor) and item.grad_fn is not None
            # In place, an activation of torch computes the same.
            unseen = name in SILENT or (name == "inplace" and _is_installed(type(layer)))
            if name not in _INTERNAL and not unseen and not result:
                plain[name] = self.of(item)
        hooks = [hook for name in _HOOKS for hook in getattr(layer, name, {}).values()]
        if hooks:
            plain["hooks"] = [self.of(hook) for hook in hooks]
        constant = layer._non_persistent_buffers_set
        plain |= {n: array(b) for n, b in layer._buffers.items() if n in constant and b is not None}
        if not _is_installed(type(layer)):
            plain |= self._code(type(layer), "forward", "__call__", "train")
        return plain

    def _script(self, layer: torch.jit.ScriptModule) -> dict[str, Plain]:
        """A layer of TorchScript by its code, the constants in it and its attributes."""
        plain: dict[str, Plain] = {"class": str(layer.original_name)}
        if layer._c._has_method("forward"):
            code, constants = layer.code_with_constants
            # Classes of one name get numbers, in the order in which a process makes them.
            code = re.sub(r"___torch_mangle_\d+\.", "", code)
            plain |= {"code": _hash(code), "constants": self.of(dict(constants.const_mapping))}
        held = layer._concrete_type.get_attributes()
        return plain | {n: self.of(getattr(layer, n)) for n in held if n not in _INTERNAL}

    def _class(self, kind: type, *, deep: bool = True) -> Plain:
        """A class by its name; one of the user's by its code too."""
        self._note(kind)
        name = f"{kind.__module__}.{kind.__qualname__}"
        code = self._code(kind) if deep and not _is_installed(kind) else {}
        return {"class": name, **code} if code else name

    def _code(self, kind: type, *starts: str) -> dict[str, Plain]:
        """The methods of a user's class and its plain attributes; from `starts` on, those used."""
        held: dict[str, Any] = {}
        # The one that is used, and those of base classes that it calls.
        functions: dict[str, list[types.FunctionType]] = {}
        for base in reversed([base for base in kind.__mro__ if not _is_installed(base)]):
            held |= vars(base)
            for name, item in vars(base).items():
                function = getattr(item, "fget", None) or getattr(item, "__func__", item)
                if isinstance(function, types.FunctionType):
                    calls = "super" in _names(function.__code__, "GLOBAL")
                    functions[name] = [function, *(functions.get(name, ()) if calls else ())]
        wanted = set(functions) - {"__init__", "__repr__", "extra_repr"}
        if starts:
            wanted, waiting = set(), [*starts]
            while waiting:
                name = waiting.pop()
                if name in functions and name not in wanted:
                    wanted.add(name)
                    for function in functions[name]:
                        waiting += _names(function.__code__, "ATTR", "METHOD")
        plain = {}
        for name in sorted(wanted):
            used, *replaced = map(self._function, functions[name])
            plain[f"code of {name}"] = used
            if replaced:
                plain[f"code of {name} in base classes"] = replaced
        for name, item in held.items():
            if name[:2] != "__" and isinstance(item, bool | int | float | str | tuple):
                plain[name] = self.of(item)
        return plain

    def _function(self, function: types.FunctionType) -> Plain:
        """A function of a library by its name, another by its code and what it takes from outside.

        These are its defaults, the variables around it, and constants and functions of its module.
        """
        self._note(function)
        if _is_installed(function):
            return _named(function)
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        outside: dict[str, Plain] = {}
        used = _names(function.__code__, "ATTR", "METHOD")
        for name in sorted(_names(function.__code__, "GLOBAL") & function.__globals__.keys()):
            item = function.__globals__[name]
            if isinstance(item, types.ModuleType):
                there = {} if _is_installed(item) else vars(item)
            elif isinstance(item, _WHOLE) or callable(item):
                outside[name] = self.of(item)
                continue
            else:  # of an object, such as the arguments of a command, what is used
                there = attributes(item)
                outside[name] = self._class(type(item))
            outside |= {f"{name}.{n}": self.of(there[n]) for n in sorted(used & there.keys())}
        taken = [function.__defaults__, function.__kwdefaults__, cells, outside]
        return {
            "name": function.__qualname__,
            "code": _hash(repr(_instructions(function.__code__))),
            **({"takes": self.of(taken)} if any(taken) else {}),
        }

    def _note(self, value: Any) -> None:
        """Remember the library that a class or function is of."""
        for base in getattr(value, "__mro__", (value,)):
            if _is_installed(base):
                self._libraries.add(str(base.__module__).partition(".")[0])


def tensors_in(network: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers in a network's state dict, without other things in it."""
    state = network.state_dict().items()
    return {_uncompiled(name): value for name, value in state if isinstance(value, Tensor)}


def _uncompiled(name: str) -> str:
    """The name of a part of a network as it was before `torch.compile`."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def array(value: Tensor | np.ndarray[Any, Any]) -> dict[str, Plain]:
    """The type and the shape of an array, and its values or, where there are many, a hash."""
    form = _form(value)
    if isinstance(value, Tensor):
        plain_layout = value.layout == torch.strided and value.device.type != "meta"
        if not plain_layout or value.is_quantized or value.is_nested:
            return {**form, "shape": str(value.layout), "sha256": _hash(repr(value))}
        tensor = value.detach().cpu().contiguous()
        # As bytes, because NumPy has no bfloat16.
        raw = np.atleast_1d(tensor.reshape(-1).view(torch.uint8).numpy())
        values = tensor.tolist() if tensor.numel() <= FEW and not tensor.is_complex() else None
    else:
        raw = np.ascontiguousarray(value)
        values = (
            value.tolist()
            if value.size <= FEW and value.dtype.kind in "biuf" and value.itemsize <= 8
            else None
        )
    if values is not None:
        return {**form, "values": _finite(values)}
    return {**form, "sha256": hashlib.sha256(raw.tobytes()).hexdigest()[:32]}


def _form(value: Tensor | np.ndarray[Any, Any]) -> dict[str, Plain]:
    kind = str(value.dtype).removeprefix("torch.")
    return {"array": kind, "shape": [] if getattr(value, "is_nested", False) else [*value.shape]}


def attributes(value: object) -> dict[str, Any]:
    """The attributes of an object, also of one with `__slots__`."""
    slots = [name for base in type(value).__mro__ for name in _slots(base)]
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {**held, **getattr(value, "__dict__", {})}


def public(value: object) -> dict[str, Any]:
    """The attributes of an object whose names are public."""
    return {name: item for name, item in attributes(value).items() if name[0] != "_"}


def attacks_inside(attack: Any) -> Iterator[Any]:
    """The attacks that an attribute of an attack holds, and those inside them."""
    for value in public(attack).values():
        for item in value if isinstance(value, list | tuple) else [value]:
            if library_of(item) is not None:
                yield item
                yield from attacks_inside(item)


def library_of(attack: object) -> str | None:
    """ "art", "torchattacks" or "foolbox", whose attack this is, without importing any; or None."""
    modules = tuple(f"{base.__module__}." for base in type(attack).__mro__)
    return next(
        (
            name
            for name, home in ATTACKS.items()
            if any(module.startswith(f"{home}.") for module in modules)
        ),
        None,
    )


# What a scheduler changes as it steps.
PROGRESS = frozenset(
    {"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "best", "T_cur"}
    | {"num_bad_epochs", "cooldown_counter", "_is_initial", "optimizer", "T_i"}
)
# Of an ART estimator: what is described elsewhere, or changes nothing.
_ELSEWHERE = ("optimizer", "device_type", "channels_first")


def _is_installed(value: Any) -> bool:
    """Whether a class, a function or a module is of a library: its name and version say all."""
    if isinstance(value, types.ModuleType):
        return _is_library(value.__name__)
    return _is_library(getattr(value, "__module__", None) or "builtins")


@functools.cache
def _is_library(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name.partition(".")[0] in sys.stdlib_module_names and name != "__main__"
    path = str(Path(file).resolve())
    homes = {"site-packages", "dist-packages"} & set(Path(path).parts)
    return bool(homes) or path.startswith((f"{_HOME}{os.sep}", *_INSTALLED))


@functools.lru_cache
def _versions(package: str) -> tuple[tuple[str, str], ...]:
    """The distributions that a package comes from, with their versions; slow but once."""
    known = DISTRIBUTIONS.get(package, package)
    names = [known] if _version(known) else packages_distributions().get(package, [])
    return tuple((name.replace("_", "-"), _version(name) or "?") for name in names)


def _version(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


# What a function takes from its module as a whole.
_WHOLE = (bool, int, float, str, bytes, Mapping, Sequence, Set, Tensor, np.ndarray, np.generic)


@functools.lru_cache
def _of_optimizers() -> frozenset[str]:
    """What every optimizer has, beside its groups; not at import, as making one takes a second."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    return frozenset(vars(optimizer)) | {"_step_count", "_opt_called", "step"}


def _first_of(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group of an optimizer as it was before a scheduler moved it, as far as it says."""
    first = {name: item for name, item in group.items() if name != "initial_lr"}
    first["lr"] = group.get("initial_lr", group.get("lr"))
    if "max_momentum" in group:  # of OneCycleLR and CyclicLR, which begin there
        if "momentum" in group:
            first["momentum"] = group["max_momentum"]
        elif "betas" in group:
            first["betas"] = (group["max_momentum"], *group["betas"][1:])
    return first


def _named(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"


def _slots(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else [s for s in slots if s[:2] != "__"]


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _names(code: types.CodeType, *kinds: str) -> set[str]:
    """The names that a function and those inside it look up, as globals or as attributes."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname.endswith(kinds)}
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return found.union(*(_names(constant, *kinds) for constant in inner))


def _instructions(code: types.CodeType) -> tuple[Any, ...]:
    """The instructions, names and constants of a function, without lines and docstring."""
    constants = [
        _instructions(constant) if isinstance(constant, types.CodeType) else _ordered(constant)
        for constant in code.co_consts
    ]
    loaded = {item.arg for item in dis.get_instructions(code) if item.opcode in dis.hasconst}
    if code.co_consts and isinstance(code.co_consts[0], str) and 0 not in loaded:
        constants[0] = None  # the docstring
    return (code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants)


def _ordered(constant: object) -> object:
    return sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant


def _finite(value: Any) -> Plain:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _shortened(value: Plain) -> Plain:
    """A long sequence, mapping or text by its length and a hash."""
    if isinstance(value, list | dict | str) and len(value) > LONGEST:
        return {"length": len(value), "sha256": digest(value)[:32]}
    return value
