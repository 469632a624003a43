"""What makes a run the same: each difference is refused by its name, what may differ is not.

A run of one epoch is resumed for a second one, with one thing changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from lfr_testing import TAKES_HOOKS
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from torch.utils.data import DataLoader, Dataset, TensorDataset

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.errors import UsageError
from art_lfr.penalties import LocalFlatness, Penalty
from art_lfr.training.identity import FREE


class Head(nn.Module):
    """A part that a user has written, with settings and code of its own."""

    constant: torch.Tensor

    def __init__(self, slope: float = 0.1, shift: float = 0.0, act: Any = functional.relu) -> None:
        super().__init__()
        self.slope, self.act = slope, act
        self.layer = nn.Linear(32, 10)
        self.register_buffer("constant", torch.full((32,), shift))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.act(x - self.constant)) * self.scale()

    def scale(self) -> float:
        return 1 + self.slope


class OtherScale(Head):
    """The same layers and weights; only a method that the forward pass calls is another."""

    def scale(self) -> float:
        return 1 - self.slope


def same_name(kind: type[nn.Module]) -> type[nn.Module]:
    """As if the user had edited the class in its file."""
    kind.__qualname__, kind.__name__ = Head.__qualname__, Head.__name__
    return kind


def network(**changes: Any) -> nn.Sequential:
    given = {"act": nn.ReLU(), "p": 0.1, "momentum": 0.1, "eps": 1e-5, "head": Head(), **changes}
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 32, bias=given.get("bias", True)),
        nn.BatchNorm1d(32, momentum=given["momentum"], eps=given["eps"]),
        given["act"],
        nn.Dropout(given["p"]),
        given["head"],
    )


def sgd(net: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), **{"lr": 0.05, "momentum": 0.9, **changes})


class Run(NamedTuple):
    """One call of `fit`, as a user makes it in a new program."""

    net: Callable[[], nn.Module] = network
    loss: Callable[[], Any] = nn.CrossEntropyLoss
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    classifier: Mapping[str, Any] = MappingProxyType({})
    trainer: Mapping[str, Any] = MappingProxyType({})
    attack: Callable[[PyTorchClassifier], Any] | None = None
    data: Callable[[Any, Any], tuple[Any, Any]] = lambda x, y: (x, y)
    fit: Mapping[str, Any] = MappingProxyType({})
    loader: Callable[[Any, Any], Any] | None = None
    seed: int = 0

    def __call__(self, directory: Path, data: Any, epochs: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(self.seed)
        net = self.net()
        classifier = PyTorchClassifier(
            net,
            self.loss(),
            (1, 8, 8),
            10,
            optimizer=self.optimizer(net),
            **{"clip_values": (0.0, 1.0), "device_type": "cpu", **self.classifier},
        )
        attack = {} if self.attack is None else {"attack": self.attack(classifier), "ratio": 0.5}
        trainer = AdversarialTrainerLFRPyTorch(
            classifier, **{"eps": 0.1, "max_iter": 1, "verbose": False, **attack, **self.trainer}
        )
        x, y = data.x[:96], data.y[:96]
        run = {
            "scheduler": self.scheduler and self.scheduler(classifier.optimizer),
            "nb_epochs": epochs,
            "validation_data": (data.x[96:128], data.y[96:128]),
            "checkpoint_dir": directory,
            "resume": True,
            **self.fit,
        }
        if self.loader is not None:
            trainer.fit_loader(self.loader(x, y), **run)
        else:
            trainer.fit(*self.data(x, y), **{"batch_size": 32, **run})
        state = net.state_dict().items()
        return {name.removeprefix("_orig_mod."): value.clone() for name, value in state}


def frozen(*indices: int) -> nn.Module:
    net = network()
    for index in indices:
        net[index].requires_grad_(False)
    return net


def hooked(amount: float) -> nn.Module:
    net = network()
    net[1].register_forward_hook(lambda module, inputs, output: output + amount)
    return net


def two_groups(net: nn.Module, order: tuple[int, ...] = (1, 5), **second: Any) -> Any:
    first, last = ({"params": net[i].parameters()} for i in order)
    return torch.optim.SGD([first, {**last, **second}, {"params": net[2].parameters()}], lr=0.05)


def pgd(classifier: PyTorchClassifier, **changes: Any) -> Any:
    keywords = {"eps": 0.1, "eps_step": 0.05, "max_iter": 1, "verbose": False, **changes}
    return ProjectedGradientDescent(classifier, **keywords)


def flip(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return batch.flip(-1)


def shift(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return batch.roll(1, -1)


class Constant(Penalty):
    """A penalty of the user's own, with a private setting."""

    def __init__(self, power: float) -> None:
        self._power = power

    def parts(self, view: Any, x: torch.Tensor, y: torch.Tensor, searched: Any) -> Any:
        yield 1.0, view.losses(x, y) ** self._power


def noise(sigma: float) -> dict[str, Any]:
    return {"preprocessing": (sigma, 1.0)}


ONCE = partial(StepLR, step_size=1)
BASES: dict[str, Run] = {
    "plain": Run(),
    "weighted": Run(loss=lambda: nn.CrossEntropyLoss(weight=torch.ones(10))),
    "adam": Run(optimizer=lambda net: torch.optim.Adam(net.parameters(), lr=1e-3)),
    "groups": Run(optimizer=two_groups),
    "step": Run(scheduler=ONCE),
    "cosine": Run(scheduler=lambda o: CosineAnnealingLR(o, 9)),
    "lambda": Run(scheduler=lambda o: LambdaLR(o, lambda epoch: 0.9**epoch)),
    "plateau": Run(scheduler=lambda o: ReduceLROnPlateau(o, patience=3)),
    "chained": Run(scheduler=lambda o: ChainedScheduler([ONCE(o), MultiStepLR(o, [5])])),
    "attack": Run(attack=pgd),
    "augment": Run(trainer={"augment": flip}),
    "penalty": Run(trainer={"penalty": Constant(1.0), "lam": 0.1}),
    "frozen": Run(net=lambda: frozen(1)),
    "hooked": Run(net=lambda: hooked(0.1)),
    "loader": Run(loader=lambda x, y: loader(x, y)),
}


def loader(x: Any, y: Any, **changes: Any) -> DataLoader[Any]:
    dataset = TensorDataset(torch.tensor(x), torch.tensor(y))
    return DataLoader(dataset, **{"batch_size": 32, "shuffle": True, **changes})


def net_with(**changes: Any) -> dict[str, Any]:
    return {"net": lambda: network(**changes)}


def tuned(**changes: Any) -> dict[str, Any]:
    return {"optimizer": partial(sgd, **changes)}


def options(**changes: Any) -> dict[str, Any]:
    return {"trainer": changes}


# (which run, what is changed, what the error says)
DIFFERENCES: list[tuple[str, dict[str, Any], str]] = [
    # the network
    ("plain", net_with(act=nn.Tanh()), r"network\.3\.class is '.*Tanh', but .*has '.*ReLU'"),
    ("plain", net_with(act=nn.LeakyReLU()), r"network\.3\.class is '.*LeakyReLU'"),
    ("plain", net_with(p=0.5), r"network\.4\.p is 0\.5, but .* has 0\.1"),
    ("plain", net_with(momentum=0.2), r"network\.2\.momentum is 0\.2"),
    ("plain", net_with(eps=1e-3), r"network\.2\.eps is 0\.001"),
    ("plain", net_with(bias=False), r"network\.weights\.1\.bias is None"),
    ("plain", {"net": lambda: network(head=Head(slope=0.2))}, r"network\.5\.slope is 0\.2"),
    ("plain", {"net": lambda: network(head=Head(act=torch.tanh))}, r"network\.5\.act is '.*tanh'"),
    ("plain", {"net": lambda: network(head=Head(shift=1.0))}, r"network\.5\.constant is another"),
    (
        "plain",
        {"net": lambda: network(head=same_name(OtherScale)())},
        r"of scale.* is another",
    ),
    ("plain", {"net": lambda: frozen(1)}, r"trained parameters is "),
    ("plain", {"net": lambda: network().double()}, r"network\.weights\.1\.weight is "),
    ("plain", {"net": lambda: hooked(0.1)}, r"network\.1\.hooks is "),
    ("hooked", {"net": lambda: hooked(0.2)}, r"network\.1\.hooks.* is 0\.2, but .* has 0\.1"),
    ("frozen", {"seed": 1}, r"network\.1\.weight is another"),
    # the loss
    ("plain", {"loss": lambda: nn.CrossEntropyLoss(label_smoothing=0.1)}, "loss.label_smoothing"),
    (
        "plain",
        {"loss": lambda: nn.CrossEntropyLoss(weight=torch.ones(10))},
        r"loss\.weights",
    ),
    (
        "weighted",
        {"loss": lambda: nn.CrossEntropyLoss(weight=torch.arange(10.0))},
        r"loss\.weights",
    ),
    ("plain", {"loss": lambda: nn.CrossEntropyLoss(ignore_index=3)}, r"loss\.ignore_index is 3"),
    ("plain", {"loss": nn.MultiMarginLoss}, r"loss\.class is '.*MultiMarginLoss'"),
    ("plain", {"loss": nn.NLLLoss}, r"loss\.class is '.*NLLLoss', but .*CrossEntropyLoss'"),
    # the optimizer
    ("plain", tuned(lr=0.01), r"optimizer\.groups\.0\.lr is 0\.01, but .* has 0\.05"),
    ("plain", tuned(momentum=0.8), r"optimizer\.groups\.0\.momentum is 0\.8"),
    ("plain", tuned(nesterov=True), r"optimizer\.groups\.0\.nesterov is True"),
    ("plain", tuned(weight_decay=1e-4), r"optimizer\.groups\.0\.weight_decay is 0\.0001"),
    ("plain", tuned(maximize=True), r"optimizer\.groups\.0\.maximize is True"),
    ("plain", {"optimizer": BASES["adam"].optimizer}, r"optimizer\.class is '.*Adam'"),
    ("plain", {"optimizer": two_groups}, r"optimizer\.groups is "),
    ("groups", {"optimizer": partial(two_groups, order=(5, 1))}, r"groups\.0\.params"),
    ("groups", {"optimizer": partial(two_groups, lr=0.1)}, r"groups\.1\.lr is 0\.1"),
    (
        "adam",
        {"optimizer": lambda net: torch.optim.Adam(net.parameters(), lr=1e-3, eps=1e-6)},
        r"optimizer\.groups\.0\.eps is 1e-06",
    ),
    (
        "adam",
        {"optimizer": lambda net: torch.optim.Adam(net.parameters(), lr=1e-3, amsgrad=True)},
        r"optimizer\.groups\.0\.amsgrad is True",
    ),
    # the scheduler
    ("plain", {"scheduler": ONCE}, r"scheduler is '.*StepLR', but .* has None"),
    ("step", {"scheduler": None}, r"scheduler is None, but .* has '.*StepLR'"),
    ("step", {"scheduler": partial(StepLR, step_size=2)}, r"scheduler\.step_size is 2"),
    ("step", {"scheduler": partial(StepLR, step_size=1, gamma=0.5)}, r"scheduler\.gamma is 0\.5"),
    ("step", {"fit": {"scheduler_interval": "batch"}}, r"scheduler_interval is 'batch'"),
    ("cosine", {"scheduler": lambda o: CosineAnnealingLR(o, 8)}, r"scheduler\.T_max is 8"),
    ("cosine", {"scheduler": lambda o: CosineAnnealingLR(o, 9, 1e-3)}, r"scheduler\.eta_min"),
    ("lambda", {"scheduler": lambda o: LambdaLR(o, lambda e: 0.8**e)}, r"scheduler\.lr_lambdas"),
    ("plateau", {"scheduler": lambda o: ReduceLROnPlateau(o, patience=1)}, r"scheduler\.patience"),
    ("plateau", {"fit": {"scheduler_metric": "loss"}}, r"scheduler_metric is 'loss'"),
    (
        "chained",
        {"scheduler": lambda o: ChainedScheduler([ONCE(o), MultiStepLR(o, [6])])},
        r"scheduler\._schedulers\.1\.milestones",
    ),
    # the data
    ("plain", {"data": lambda x, y: (np.where(x == x.max(), x - 0.01, x), y)}, "x is another"),
    ("plain", {"data": lambda x, y: (x, np.roll(y, 1))}, "y is another"),
    ("plain", {"data": lambda x, y: (x[:95], y[:95])}, r"x is float32 of shape \[95, 1, 8, 8\]"),
    ("plain", {"data": lambda x, y: (x[::-1], y[::-1])}, r"x is another .*; y is another"),
    ("plain", {"fit": {"batch_size": 31}}, r"batch_size is 31, but .* has 32"),
    ("plain", {"fit": {"validation_data": None}}, "validation_data is None"),
    ("loader", {"loader": partial(loader, shuffle=False)}, r"loader\.sampler\.class is "),
    (
        "loader",
        {"loader": lambda x, y: loader(1 - x, y)},
        r"dataset\.tensors\.0 is another",
    ),
    ("plain", {"classifier": {"clip_values": (0.0, 2.0)}}, r"clip_values is \[0\.0, 2\.0\], but"),
    ("plain", {"classifier": noise(0.5)}, r"preprocessing\.0\.mean is 0\.5"),
    # the attack and the options
    ("plain", {"attack": pgd}, r"attack is .*; ratio|attack is .*CleanTermAttack"),
    ("attack", {"attack": partial(pgd, eps=0.2)}, r"attack\.\S*eps\S* is 0\.2"),
    ("attack", {"attack": partial(pgd, max_iter=2)}, r"attack\.\S*max_iter is 2"),
    ("attack", {"attack": partial(pgd, random_eps=True)}, r"attack\.\S*random_eps is True"),
    ("attack", {"attack": lambda c: FastGradientMethod(c, eps=0.1)}, r"attack\.\S*class is "),
    ("attack", {"trainer": {"ratio": 1.0}}, r"attack\._ratio is 1\.0, but .* has 0\.5"),
    ("plain", options(eps=0.2), r"eps is 0\.2, but .* has 0\.1"),
    ("plain", options(lam=0.5), "lam is 0.5"),
    ("plain", options(norm=2), r"norm is 2\.0, but .* has 'inf'"),
    ("plain", options(max_iter=2), "max_iter is 2"),
    ("plain", options(eps_step=0.05), "eps_step is 0.05"),
    ("plain", options(seed=1), "seed is 1"),
    ("plain", options(warmup_epochs=3), "warmup_epochs is 3"),
    ("plain", options(ema_decay=0.9), "ema_decay is 0.9"),
    ("plain", options(max_grad_norm=2.0), "max_grad_norm is 2.0"),
    ("plain", options(penalty="lfr-held"), "penalty.*minus_weight"),
    ("plain", options(augment=flip), "augment is 'flip', but .* has None"),
    ("augment", options(augment=shift), r"augment\.code is another"),
    ("penalty", options(penalty=Constant(2.0), lam=0.1), r"penalty\._power is 2\.0"),
]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, data: Any) -> Callable[[str], Path]:
    """The directory of a run of one epoch, made once."""
    home = tmp_path_factory.mktemp("runs")

    def directory(name: str) -> Path:
        if not (home / name).exists():
            BASES[name](home / name, data, 1)
        return home / name

    return directory


@pytest.mark.parametrize(("base", "change", "named"), DIFFERENCES)
def test_a_difference_is_refused_by_its_name(
    started: Any, data: Any, tmp_path: Path, base: str, change: dict[str, Any], named: str
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(started(base), directory)
    before = (directory / "last.pt").read_bytes()
    with pytest.raises(UsageError, match=named) as caught:
        BASES[base]._replace(**change)(directory, data, 2)
    assert "checkpoint_dir" in str(caught.value)
    assert (directory / "last.pt").read_bytes() == before


class Documented(Head):
    """A docstring, a method that no pass calls and another way to print change no result."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map features to logits."""
        return self.layer(self.act(x - self.constant)) * self.scale()

    def unused(self) -> None:
        raise AssertionError

    def extra_repr(self) -> str:
        return "printed in another way"


def wordy(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same as `flip`, in words of its own."""
    # A comment.
    return batch.flip(-1)


wordy.__qualname__ = flip.__qualname__
as_lists = {"data": lambda x, y: (x.tolist(), y.tolist())}
ACCEPTED: list[Any] = [
    ("plain", options(verbose=True)),
    ("plain", options(max_physical_batch_size=32)),
    ("plain", {"fit": {"callback": lambda record: None}}),
    ("plain", {"seed": 7}),
    ("plain", {"net": lambda: network(head=same_name(Documented)())}),
    ("plain", net_with(act=nn.ReLU(inplace=True))),
    ("plain", {"net": lambda: network().eval()}),
    pytest.param(
        *("plain", {"net": lambda: torch.compile(network(), backend="eager")}), marks=TAKES_HOOKS
    ),
    ("plain", options(norm="inf")),
    ("plain", options(eps=np.float64(0.1), seed=np.int64(0))),
    ("plain", options(penalty=LocalFlatness())),
    ("plain", options(penalty="lfr")),
    ("plain", as_lists),
    ("plain", {"data": lambda x, y: (x.astype(np.float64), y.astype(np.uint16))}),
    ("plain", {"data": lambda x, y: (torch.tensor(x), np.eye(10)[y])}),
    ("plain", {"fit": {"batch_size": np.int32(32)}}),
    ("plain", {"classifier": {"clip_values": (0, 1)}}),
    ("plain", {"loss": lambda: nn.CrossEntropyLoss(reduction="mean")}),
    ("plain", {"optimizer": partial(sgd, lr=np.float64(0.05))}),
    ("lambda", {"scheduler": lambda o: LambdaLR(o, lambda epoch: 0.9**epoch, -1)}),
    ("attack", {"attack": partial(pgd, verbose=True)}),
    ("augment", options(augment=wordy)),
    ("loader", {"loader": partial(loader, pin_memory=False, num_workers=0)}),
]


@pytest.mark.parametrize(("base", "change"), ACCEPTED)
def test_what_may_differ_changes_no_bit(
    started: Any, data: Any, tmp_path: Path, base: str, change: dict[str, Any]
) -> None:
    whole = BASES[base](tmp_path / "whole", data, 2)
    directory = tmp_path / "run"
    shutil.copytree(started(base), directory)
    resumed = BASES[base]._replace(**change)(directory, data, 2)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


class Drawing:
    """An augmentation with a generator of its own."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        noise = torch.randn(batch.shape, generator=self.generator)
        return (batch + 0.01 * noise).clamp(0, 1)


class Counting(Dataset[Any]):
    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y, self.passes = x, y, 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        self.passes += 1
        return self.x[index], self.y[index]


def counted(x: Any, y: Any) -> DataLoader[Any]:
    return DataLoader(Counting(x, y), batch_size=32)


def own_generator(x: Any, y: Any) -> DataLoader[Any]:
    return loader(x, y, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("run", "named"),
    [
        (Run(trainer={"augment": Drawing()}), r"augment\.generator\.state"),
        (Run(loader=counted), r"loader\.dataset\.passes"),
        (Run(loader=own_generator), r"loader\.sampler\.generator\.state"),
    ],
)
def test_what_no_checkpoint_keeps_is_warned_of(
    data: Any, tmp_path: Path, run: Run, named: str
) -> None:
    with pytest.warns(
        RuntimeWarning, match=rf"{named}.* changes as it is used, which no"
    ) as warned:
        run(tmp_path, data, 2)
    assert [w.filename for w in warned if "as it is used" in str(w.message)] == [__file__]


@pytest.mark.parametrize("base", ["plain", "augment", "loader"])
def test_what_holds_nothing_is_not(
    data: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder, base: str
) -> None:
    BASES[base](tmp_path, data, 2)
    assert not [w for w in recwarn if "as it is used" in str(w.message)]


def test_a_new_trainer_goes_on_with_the_same_objects(data: Any, tmp_path: Path) -> None:
    """As where a cell of a notebook is run again after it was interrupted."""
    whole = Run(scheduler=lambda o: OneCycleLR(o, 0.1, total_steps=7))(tmp_path / "whole", data, 2)
    torch.manual_seed(0)
    net = network()
    optimizer = sgd(net)
    scheduler = OneCycleLR(optimizer, 0.1, total_steps=7)

    def stop(record: Any) -> None:
        raise KeyboardInterrupt

    again = Run(net=lambda: net, optimizer=lambda _: optimizer, scheduler=lambda _: scheduler)
    with pytest.raises(KeyboardInterrupt):
        again._replace(fit={"callback": stop})(tmp_path / "cell", data, 2)
    resumed = again(tmp_path / "cell", data, 2)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_what_may_differ_is_listed() -> None:
    assert FREE == ("verbose", "max_physical_batch_size")


def test_another_version_of_a_library_is_refused(
    started: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(started("plain"), directory)
    monkeypatch.setattr("art_lfr.storage.description._version", lambda name: "0.0.1")
    from art_lfr.storage import description

    description._versions.cache_clear()
    try:
        with pytest.raises(UsageError, match=r"version\.numpy is '0\.0\.1', but the run in"):
            BASES["plain"](directory, data, 2)
    finally:
        description._versions.cache_clear()


def test_enough_is_tried() -> None:
    assert len(DIFFERENCES) >= 40
    assert len(ACCEPTED) >= 20
