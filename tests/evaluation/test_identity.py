"""What makes an evaluation the same: each difference is refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from art_lfr import evaluate
from art_lfr.attacks.named import AttackSpec
from art_lfr.errors import UsageError
from art_lfr.storage.records import read_record, write_record

EPS = 0.1


class Net(nn.Module):
    def __init__(self, slope: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.slope = slope
        self.layer, self.act = nn.Linear(16, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * self.layer(self.act(x.flatten(1)))


class Counting(FastGradientMethod):
    """An attack of a user's own, with a private setting, that keeps what it has done."""

    def __init__(self, classifier: Any, power: float) -> None:
        super().__init__(classifier, eps=EPS)
        self._power, self._calls = power, 0

    def generate(self, x: Any, y: Any = None, **keywords: Any) -> Any:
        self._calls += 1
        return super().generate(x, y, **keywords)


def attack_of(classifier: Any, **changes: Any) -> Any:
    keywords = {"eps": EPS, "eps_step": 0.02, "max_iter": 2, "verbose": False, **changes}
    return ProjectedGradientDescent(classifier, **keywords)


class Call(NamedTuple):
    net: Callable[[], nn.Module] = Net
    loss: Callable[[], Any] = nn.CrossEntropyLoss
    classifier: dict[str, Any] | None = None
    attacks: Callable[[Any], Any] = attack_of
    data: Callable[[Any, Any], tuple[Any, Any]] = lambda x, y: (x, y)
    keywords: dict[str, Any] | None = None

    def __call__(self, directory: Path) -> Any:
        generator = np.random.default_rng(0)
        x = generator.random((24, 1, 4, 4)).astype(np.float32)
        y = generator.integers(0, 3, 24)
        made = {"clip_values": (0.0, 1.0), **(self.classifier or {})}
        classifier = PyTorchClassifier(self.net(), self.loss(), (1, 4, 4), 3, **made)
        keywords = {"eps": EPS, "flatness_steps": 0, **(self.keywords or {})}
        attacks = {"mine": self.attacks(classifier), "named": "APGD-CE"}
        return evaluate(
            classifier, *self.data(x, y), attacks=attacks, state_dir=directory, **keywords
        )


def sigmoid() -> nn.Module:
    net = Net()
    net.act = nn.Sigmoid()
    return net


def other_weights() -> nn.Module:
    net = Net()
    with torch.no_grad():
        net.layer.bias += 0.1
    return net


def for_another(classifier: Any) -> Any:
    made_for = PyTorchClassifier(other_weights(), nn.CrossEntropyLoss(), (1, 4, 4), 3)
    return attack_of(made_for)


DIFFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"net": sigmoid}, r"model\.act\.class is '.*Sigmoid', but the evaluation in state_dir has"),
    ({"net": lambda: Net(2.0)}, r"model\.slope is 2\.0, but .* has 1\.0"),
    ({"net": other_weights}, r"model\.weights\.layer\.bias is "),
    ({"loss": lambda: nn.CrossEntropyLoss(label_smoothing=0.1)}, r"loss\.label_smoothing is 0\.1"),
    ({"loss": nn.MultiMarginLoss}, r"loss\.class is '.*MultiMarginLoss'"),
    ({"classifier": {"clip_values": (0.0, 2.0)}}, r"clip_values is \[0\.0, 2\.0\]"),
    ({"classifier": {"preprocessing": (0.1, 1.0)}}, r"preprocessing\.0\.mean is 0\.1"),
    ({"data": lambda x, y: (x[::-1].copy(), y)}, "x is another than in the evaluation"),
    ({"data": lambda x, y: (x, y[::-1])}, "y is another than in the evaluation"),
    ({"data": lambda x, y: (x[:20], y[:20])}, r"x is float32 of shape \[20, 1, 4, 4\]"),
    ({"keywords": {"eps": 0.12}}, r"eps is 0\.12, but .* has 0\.1"),
    ({"keywords": {"seed": 1}}, "seed is 1, but"),
    ({"keywords": {"batch_size": 7}}, "batch_size is 7, but"),
    ({"attacks": lambda c: attack_of(c, max_iter=3)}, r"attack\.object\.\S*max_iter is 3"),
    ({"attacks": lambda c: attack_of(c, num_random_init=1)}, r"attack\.object\.\S*num_random_init"),
    ({"attacks": lambda c: FastGradientMethod(c, eps=EPS)}, r"attack\.object\.class is "),
    ({"attacks": for_another}, r"_estimator\.model is '.*Net', but .* has 'the judged model'"),
    ({"attacks": lambda c: AttackSpec(attack_of(c), images=10)}, r"images is 10, but mine.* None"),
    ({"attacks": lambda c: AttackSpec(attack_of(c), eps=0.15)}, r"threat is 'Linf 0\.15'"),
]


@pytest.mark.parametrize(("change", "named"), DIFFERENCES)
def test_a_difference_is_refused_by_its_name(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    Call()(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=named):
        Call()._replace(**change)(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_private_setting_counts_and_what_an_attack_keeps_does_not(tmp_path: Path) -> None:
    objects, net = [], Net()

    def counting(classifier: Any) -> Any:
        objects.append(Counting(classifier, 1.0))
        return objects[-1]

    call = Call(net=lambda: net, attacks=counting)
    first, again = call(tmp_path), call(tmp_path)
    assert [row.accuracy for row in first.rows] == [row.accuracy for row in again.rows]
    assert [attack._calls for attack in objects] == [1, 0]
    again = call._replace(attacks=lambda classifier: objects[0])(tmp_path)
    assert objects[0]._calls == 1
    with pytest.raises(UsageError, match=r"_power is 2\.0, but mine\.attack\.pt .* has 1\.0"):
        call._replace(attacks=lambda classifier: Counting(classifier, 2.0))(tmp_path)


class Keeping(Net):
    """Keeps its features, as networks do that are looked into."""

    features: Any = None
    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.features = self.act(x.flatten(1))
        return self.slope * self.layer(self.features)


def test_what_a_model_keeps_of_a_pass_is_no_difference(tmp_path: Path) -> None:
    net = Keeping()
    call = Call(net=lambda: net)
    call(tmp_path)
    call(tmp_path)
    net.slope = 3.0
    with pytest.raises(UsageError, match=r"model\.slope is 3\.0, but"):
        call(tmp_path)


@pytest.mark.parametrize("part", ["correct", "adversarial", "seconds", "moved", "identity"])
def test_an_attack_file_with_another_content_is_damaged(tmp_path: Path, part: str) -> None:
    Call()(tmp_path)
    path = tmp_path / "mine.attack.pt"
    content = torch.load(path, weights_only=True)
    if part in content:
        del content[part]
    else:
        content["result"][part] = torch.ones(3, dtype=torch.bool)
    torch.save(content, path)
    with pytest.raises(UsageError, match=r"mine\.attack\.pt is damaged"):
        Call()(tmp_path)


@pytest.mark.parametrize("name", ["torch", "art", "numpy"])
def test_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from art_lfr.storage import description

    def versions(package: str) -> tuple[tuple[str, str], ...]:
        return ((package, "0.1" if package == name else "1"),)

    monkeypatch.setattr(description, "_versions", lambda package: ((package, "1"),))
    Call()(tmp_path)
    monkeypatch.setattr(description, "_versions", versions)
    with pytest.raises(UsageError, match=rf"version\.{name} is '0\.1', but .* has '1'"):
        Call()(tmp_path)


def test_a_record_without_a_part_is_of_another_version(tmp_path: Path) -> None:
    Call()(tmp_path)
    path = tmp_path / "evaluation.json"
    content = read_record(path)
    del content["moved"]
    write_record(path, content)
    with pytest.raises(UsageError, match=r"evaluation\.json is of another version"):
        Call()(tmp_path)
