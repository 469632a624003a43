"""Whether a checkpoint holds what it should: all is looked at before any of it is used."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from art_lfr.core.precision import loss_scaler
from art_lfr.core.randomness import RandomState
from art_lfr.errors import UsageError
from art_lfr.storage.description import PROGRESS
from art_lfr.storage.identity import seal
from art_lfr.training.averaging import tensors_of
from art_lfr.training.identity import RunIdentity
from art_lfr.training.scheduling import Schedule

# Optimizers keep sums over rows and columns in place of whole matrices.
FACTORS = ("row_var", "col_var")


class DamagedError(Exception):
    """What is wrong with a content."""


def damaged(path: Path, reason: str) -> UsageError:
    """The error for a checkpoint with a wrong content."""
    return UsageError(f"{path} is damaged ({reason}); allowed: a checkpoint as it was written")


def check(
    content: Mapping[str, Any],
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    identity: RunIdentity,
) -> None:
    """Raise UsageError where a part of a checkpoint is missing or is none that was ever written.

    What it says of the run is left to `RunIdentity.check_resumes`, which is asked afterwards: where
    networks, optimizers or schedulers differ, this looks at what both have in common.
    """
    try:
        _need(content.get("sha256") == seal(content), "it is not what the run wrote")
        saved = _dict(content, "identity")
        same = {name: saved.get(name) == part for name, part in identity.parts.items()}
        _dict(saved, "constants")
        _position(content)
        if same["network"]:
            _weights(content.get("network"), network, "network")
            _average(content.get("average"), network)
            _best(content.get("best"), network, content["position"][0])
        else:
            _dict(content, "network")
        # A scheduler leaves marks in its optimizer.
        if all(same[n] for n in ("network", "optimizer", "trained parameters", "scheduler")):
            _optimizer(content.get("optimizer"), optimizer)
        if same["scheduler"]:
            _like(content.get("scheduler"), schedule.state(), "scheduler")
            if type(schedule.scheduler).__module__.startswith("torch."):
                _same_settings(content.get("scheduler"), schedule.state())
        _ends(content, saved.get("x"))
        _loss_scale(content, saved.get("precision"))
        _random(content)
    except (
        DamagedError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
    ) as error:
        raise damaged(path, " ".join(str(error).split())[:200]) from error


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise DamagedError(what)


def _dict(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    if not isinstance(value, dict):
        raise DamagedError(f"{name} is a {type(value).__name__}")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _loss_scale(content: Mapping[str, Any], precision: object) -> None:
    value = content.get("loss_scale")
    if precision != "fp16":
        _need(value is None, "loss_scale is there without float16")
        return
    like = loss_scaler(torch.device("cpu")).state_dict()
    _like(value, like, "loss_scale")
    assert isinstance(value, dict)
    _need(math.isfinite(value["scale"]) and value["scale"] > 0, "loss_scale is not above 0")


def _position(content: Mapping[str, Any]) -> None:
    run_id, position, history = (content.get(n) for n in ("run_id", "position", "history"))
    _need(isinstance(run_id, str) and len(run_id) == 32, "run_id is none")
    for name in ("stopped", "collapse_reported", "learnt"):
        _need(isinstance(content.get(name), bool), f"{name} is {content.get(name)!r:.40}")
    _need(
        isinstance(position, list | tuple) and len(position) == 2 and all(map(_is_count, position)),
        f"position is {position!r:.40}",
    )
    assert position is not None
    _need(position[1] <= position[0], f"position is {position!r:.40}")
    _need(
        isinstance(history, list)
        and len(history) == position[0]
        and all(isinstance(record, dict) for record in history),
        f"history is not that of {position[0]} epochs",
    )
    for number, record in enumerate(history or [], 1):
        right = record.get("epoch") == number and all(map(_is_number, record.values()))
        _need(right, f"history of epoch {number} is none")


def _weights(state: object, network: nn.Module, name: str) -> None:
    """Names, shapes and types of the network; finite parameters."""
    if not isinstance(state, dict):
        raise DamagedError(f"{name} is a {type(state).__name__}")
    expected, parameters = tensors_of(network), dict(network.named_parameters())
    held = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    _need(held.keys() == expected.keys(), f"{name} has other weights")
    for key, value in held.items():
        shape, kind = tuple(value.shape), value.dtype
        right = value.shape == expected[key].shape and kind == expected[key].dtype
        _need(right, f"{key!r} of {name} has shape {shape} and type {kind}")
        finite = key not in parameters or bool(value.isfinite().all())
        _need(finite, f"{key!r} of {name} has NaN or infinite values")


def _average(average: object, network: nn.Module) -> None:
    if average is None:
        return
    if not isinstance(average, list | tuple) or len(average) != 3:
        raise DamagedError("average is none")
    decay, steps, state = average
    _need(_is_number(decay) and 0 < decay < 1 and _is_count(steps), "average has no decay or steps")
    _weights(state, network, "average")


def _best(best: object, network: nn.Module, epoch: int) -> None:
    if best is None:
        return
    if not isinstance(best, dict) or best.keys() != {"epoch", "score", "state"}:
        raise DamagedError("best is none")
    _need(
        _is_count(best["epoch"]) and 1 <= best["epoch"] <= epoch, "best is of no epoch of the run"
    )
    scores = best["score"]
    _need(isinstance(scores, list) and all(map(_is_number, scores)), "the score of best is none")
    _weights(best["state"], network, "best")


def _optimizer(state: object, optimizer: torch.optim.Optimizer) -> None:
    present = optimizer.state_dict()
    if not isinstance(state, dict) or state.keys() != present.keys():
        raise DamagedError("optimizer is none")
    _like(state["param_groups"], present["param_groups"], "param_groups of optimizer")
    of_all = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = [sorted(held) for held in dict(state["state"]).values() if isinstance(held, dict)]
    _need(all(entry == names[0] for entry in names), "optimizer has a state with other entries")
    for index, held in dict(state["state"]).items():
        _need(_is_count(index) and index < len(of_all), f"optimizer has a state of {index!r:.40}")
        _need(isinstance(held, dict), f"optimizer's state of {index} is none")
        for name, value in held.items():
            _state_of(f"optimizer's {name!r} of {index}", name, value, of_all[index])


def _state_of(what: str, name: str, value: object, parameter: Tensor) -> None:
    if isinstance(value, Tensor):
        shaped = value.dim() == 0 or value.shape == parameter.shape or name in FACTORS
        _need(shaped, f"{what} has shape {tuple(value.shape)}")
        _need(bool(value.isfinite().all()), f"{what} has NaN or infinite values")
        _need(name != "step" or bool((value >= 0).all()), f"{what} is {value!r:.40}")
    else:
        number = _is_number(value) and math.isfinite(value)  # type: ignore[arg-type]
        _need(value is None or number or isinstance(value, list | bool), f"{what} is none")


def _like(value: Any, template: Any, name: str) -> None:
    """The same keys, lengths and types of values; numbers that are no NaN."""
    if isinstance(template, Mapping):
        same = isinstance(value, Mapping) and value.keys() == template.keys()
        _need(same, f"{name} has other entries")
        for key, item in template.items():
            _like(value[key], item, f"{key!r} of {name}")
    elif isinstance(template, list | tuple):
        same = isinstance(value, list | tuple) and len(value) == len(template)
        _need(same, f"{name} has another length")
        for index, item in enumerate(template):
            _like(value[index], item, f"{index} of {name}")
    elif _is_number(template):
        number = _is_number(value) and not math.isnan(value)
        # As a tensor too: an optimizer may have been told to keep its rate on the device.
        _need(number or isinstance(value, Tensor), f"{name} is {value!r:.40}")
    elif template is not None:
        _need(isinstance(value, type(template)), f"{name} is {value!r:.40}")


def _same_settings(saved: Any, present: Any) -> None:
    """A scheduler's state holds its settings too, and would put others back."""
    for name in (present or {}).keys() - PROGRESS:
        if name == "_schedulers":
            for pair in zip(saved[name], present[name], strict=True):
                _same_settings(*pair)
        else:
            _need(saved[name] == present[name], f"scheduler has {name} {saved[name]!r:.40}")


def _ends(content: Mapping[str, Any], x: object) -> None:
    steps, scale = (content.get(name) for name in ("ends", "end_scales"))
    if steps is None and scale is None:
        return
    if not isinstance(steps, Tensor) or steps.dtype != torch.int8:
        raise DamagedError("ends are no points")
    of_data = not isinstance(x, dict) or list(steps.shape) == x.get("shape")
    _need(of_data, f"ends has shape {tuple(steps.shape)}")
    if not isinstance(scale, Tensor) or scale.dtype != torch.float32:
        raise DamagedError("end_scales are none")
    lengths = scale.shape == steps.shape[:1] and bool((scale.isfinite() & (scale >= 0)).all())
    _need(lengths, "end_scales are no lengths of the samples")


def _random(content: Mapping[str, Any]) -> None:
    """Generators of their own take the states."""
    torch.Generator().set_state(content["generator"])
    if (plain := content["random"]) is None:
        return
    state = RandomState.from_plain(plain, torch.device("cpu"))
    torch.Generator().set_state(state.torch_cpu)
    np.random.RandomState().set_state(state.numpy)
    random.Random().setstate(state.python)
