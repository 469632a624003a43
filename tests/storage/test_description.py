"""A thing is known again by what it computes, and any thing can be described."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import functools
import json
import operator
import random
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from lfr_testing import TAKES_HOOKS, printed_by_python
from torch import nn

from art_lfr.errors import UsageError
from art_lfr.storage.description import Description, Network
from art_lfr.storage.identity import Identity


def described(value: Any, **names: Any) -> Any:
    plain = Description(names).of(value)
    assert json.loads(json.dumps(plain)) == plain
    return plain


def same(a: Any, b: Any) -> bool:
    return Identity({"it": a}).moved_to(Identity({"it": b})) == []


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a: int) -> None:
        self.a = a


class Holder:
    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


class Closed:
    """Nothing can be asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def adder(amount: float) -> Any:
    return lambda x: x + amount


def one(x: float, y: float = 1.0) -> float:
    """Add."""
    return x + y


def another(x: float, y: float = 1.0) -> float:
    return x + y


def farther(x: float, y: float = 2.0) -> float:
    return x + y


OFFSET = 1.0
TABLE = {"a": 1}
ACT = nn.ReLU()
PARTIAL = functools.partial(one, y=1)
FUNCTION = torch.relu
SETTINGS = Holder(width=1, output="a")


def shifted(x: float) -> float:
    return x + OFFSET


def taking(x: Any) -> Any:
    return FUNCTION(ACT(x)) * TABLE["a"] + PARTIAL(x) * SETTINGS.width


def calling(x: float) -> float:
    return shifted(x)


def script(amount: float) -> nn.Module:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.amount = amount

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.amount

    return torch.jit.script(Module())


def seeded(make: Any) -> Any:
    torch.manual_seed(0)
    return make()


def hooked_weight(amount: float) -> nn.Module:
    layer = seeded(lambda: nn.Linear(2, 2))
    layer.weight.register_hook(lambda gradient: gradient * amount)
    return layer


class Own(torch.optim.SGD):
    """An optimizer of a user's own with a setting that no group holds."""

    def __init__(self, k: int) -> None:
        super().__init__([nn.Parameter(torch.zeros(1))], lr=0.1)
        self.k = k


def stepping(hook: bool) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    if hook:
        optimizer.register_step_pre_hook(lambda *_: None)
    return optimizer


class Color(enum.Enum):
    RED = 1
    BLUE = 2


def tied(yes: bool) -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(net[0].weight)
    if yes:
        net[1].weight = net[0].weight
    return net


SAME: list[tuple[Any, Any]] = [
    (1, np.int64(1)),
    (0.5, np.float32(0.5)),
    (1, 1.0),
    ("a", np.str_("a")),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({frozenset("ab"): 1}, {frozenset("ba"): 1}),
    (np.random.default_rng(0), np.random.default_rng(0)),
    ({3, 1, 2}, {2, 1, 3}),
    ((1, 2), [1, 2]),
    (float("nan"), float("nan")),
    (one, another),
    (adder(1.0), adder(1.0)),
    (Slots(1), Slots(1)),
    (Holder(verbose=True), Holder(verbose=False)),
    (torch.arange(20) * 2, torch.arange(40)[::2]),
    (seeded(lambda: nn.Linear(2, 2)), seeded(lambda: nn.Linear(2, 2))),
    (nn.ReLU(inplace=True), nn.ReLU()),
    (threading.Lock(), threading.Lock()),
    (torch.device("cpu"), torch.device("cpu", 0)),
]
OTHERS: list[tuple[Any, Any]] = [
    (1, 2),
    (None, 0),
    ("a" * 1000, "a" * 999 + "b"),
    (list(range(1000)), [*range(999), 0]),
    (one, farther),
    (adder(1.0), adder(2.0)),
    (functools.partial(one, y=1), functools.partial(one, y=2)),
    (Slots(1), Slots(2)),
    (Holder(_private=1), Holder(_private=2)),
    (Holder(a=1), Holder()),
    (Color.RED, Color.BLUE),
    (torch.arange(20), torch.arange(20).float()),
    (torch.arange(20), torch.arange(20).view(4, 5)),
    (torch.zeros(9), torch.tensor([0.0] * 8 + [1e-30])),
    (torch.zeros(20, dtype=torch.bfloat16), torch.ones(20, dtype=torch.bfloat16)),
    (np.arange(20), np.arange(20)[::-1]),
    (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
    (Slots(1).__init__, Slots(2).__init__),
    (collections.Counter("aab"), collections.Counter("abb")),
    (nn.ReLU(), nn.Tanh()),
    (collections.deque([1]), collections.deque([2])),
    (decimal.Decimal(1), decimal.Decimal(2)),
    (bytearray(b"a"), bytearray(b"b")),
    (array.array("d", [1.0]), array.array("d", [2.0])),
    (operator.methodcaller("a"), operator.methodcaller("b")),
    (np.random.default_rng(0), np.random.default_rng(1)),
    (random.Random(0), random.Random(1)),
    (pandas.Series([1]), pandas.Series([2])),
    (pandas.DataFrame({"a": [1]}), pandas.DataFrame({"a": [2]})),
    (datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)),
    (np.array(["a"], dtype=object), np.array(["b"], dtype=object)),
    ({torch.relu: 1}, {torch.sigmoid: 1}),
    (functools.lru_cache(one), functools.lru_cache(farther)),
    (hooked_weight(1.0), hooked_weight(2.0)),
    (Own(1), Own(2)),
    (stepping(True), stepping(False)),
    (nn.Dropout(0.1), nn.Dropout(0.2)),
    (seeded(lambda: nn.Linear(2, 2)), nn.Linear(2, 2)),
    (script(1.0), script(2.0)),
    (seeded(lambda: tied(True)), seeded(lambda: tied(False))),
    (torch.nn.utils.parametrizations.weight_norm(seeded(lambda: nn.Linear(2, 2))), nn.Linear(2, 2)),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_same(a: Any, b: Any) -> None:
    assert described(a) == described(a)
    assert same(a, b)


@TAKES_HOOKS
def test_a_compiled_network_is_the_same() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert same(torch.compile(net), net)
    assert same(nn.Sequential(torch.compile(net[0]), net[1]), net)


@pytest.mark.parametrize(("a", "b"), OTHERS)
def test_others(a: Any, b: Any) -> None:
    assert not same(a, b)


def test_a_constant_and_a_function_of_its_module_belong_to_a_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Identity({"it": calling})
    monkeypatch.setattr(sys.modules[__name__], "OFFSET", 2.0)
    assert before.moved_to(Identity({"it": calling})) != []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TABLE", {"a": 2}),
        ("ACT", nn.Tanh()),
        ("PARTIAL", functools.partial(one, y=2)),
        ("FUNCTION", torch.sigmoid),
        ("SETTINGS", Holder(width=2, output="a")),
    ],
)
def test_whatever_a_function_takes_from_its_module_belongs_to_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    before = Identity({"it": taking})
    # What it does not look at may be another.
    monkeypatch.setattr(sys.modules[__name__], "SETTINGS", Holder(width=1, output="b"))
    assert before.moved_to(Identity({"it": taking})) == []
    monkeypatch.setattr(sys.modules[__name__], name, value)
    assert before.moved_to(Identity({"it": taking})) != []


class Base(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class Derived(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients


class Rounding(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return Straight.apply(x)


def by_module(x: float) -> float:
    return module_of_a_user.double(x)


module_of_a_user = types.ModuleType("module_of_a_user")
exec("def double(x):\n    return 2 * x\n", vars(module_of_a_user))


@pytest.mark.parametrize(
    ("value", "owner", "name", "other"),
    [
        (Derived(), Base, "forward", lambda self, x: x - 1),
        (Rounding(), Straight, "backward", staticmethod(lambda ctx, *g: None)),
        (by_module, module_of_a_user, "double", one),
        (Derived().forward, Base, "forward", lambda self, x: x - 1),
    ],
)
def test_what_code_uses_belongs_to_it(
    monkeypatch: pytest.MonkeyPatch, value: Any, owner: Any, name: str, other: Any
) -> None:
    before = Identity({"it": value})
    assert before.moved_to(Identity({"it": value})) == []
    monkeypatch.setattr(owner, name, other)
    assert before.moved_to(Identity({"it": value})) != []


def test_what_holds_itself_has_an_end() -> None:
    holder = Holder(a=1)
    holder.itself = [holder]
    assert "the same Holder" in json.dumps(described(holder))


@pytest.mark.parametrize(
    "value",
    [
        Closed(),
        object(),
        sys,
        open,
        type,
        (i for i in range(3)),
        Path("x"),
        memoryview(b"abc"),
        torch.empty(2, device="meta"),
        torch.eye(3).to_sparse(),
        np.array([None, "a"], dtype=object),
        np.array(["a"]),
        np.array(1 + 2j),
        torch.tensor(1 + 2j),
        np.zeros(3, dtype=[("a", int)]),
        nn.ParameterList([nn.Parameter(torch.ones(2))]),
        torch.nn.utils.spectral_norm(nn.Linear(2, 2)),
        super,
        NotImplemented,
        slice(1, 2),
        10**400,
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_can_be_described(value: Any) -> None:
    assert described(value) == described(value)
    assert described(Holder(held=value)) == described(Holder(held=value))


def test_a_named_object_stands_by_its_name() -> None:
    net = nn.Linear(2, 2)
    held = described({"model": net, "first": next(iter(net.parameters()))}, network=net)
    assert held == {"model": "the network", "first": "weight of the network"}
    plain = Description({"network": net}).of(Network(net, with_weights=False))
    assert plain["weights"]["bias"] == {"array": "float32", "shape": [2]}


def test_it_is_the_same_in_another_process() -> None:
    """Neither addresses, nor the seed of hashes, nor the order of sets count."""
    home = Path(__file__).parent
    paths = [str(home), str(home.parent / "helpers")]
    code = (
        f"import sys; sys.path[:0] = {paths!r}\n"
        "import test_description as t\n"
        "from art_lfr.storage.identity import Identity\n"
        "print(Identity({'it': [a for a, _ in t.SAME + t.OTHERS[:22]]}).digest)"
    )
    assert len({printed_by_python("-c", code).split()[-1] for _ in range(3)}) == 1


def test_differences_are_told_in_words() -> None:
    now = Identity({"eps": 0.1, "data": torch.zeros(30), "net": nn.Sequential(nn.ReLU())})
    then = Identity({"eps": 0.2, "data": torch.ones(30), "net": nn.Sequential(nn.Tanh())})
    with pytest.raises(UsageError) as caught:
        now.check(then.parts, "the run", "the same")
    assert str(caught.value) == (
        "eps is 0.1, but the run has 0.2; data is another than in the run; net.0.class is "
        "'torch.nn.modules.activation.ReLU', but the run has 'torch.nn.modules.activation.Tanh'; "
        "allowed: the same"
    )
