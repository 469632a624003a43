"""A table comes out whatever the network is, and says what it is a table of."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from lfr_testing import classifier_around
from torch import Tensor, nn

from art_lfr import evaluate, local_flatness, masking_report
from art_lfr.autoattack import run_autoattack
from art_lfr.evaluation import accuracy_curve
from art_lfr.evaluation.run import _misled

EPS = 0.05


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 5))


@pytest.fixture
def data(model: nn.Module) -> tuple[Tensor, Tensor]:
    x = torch.rand(24, 1, 6, 6)
    return x, model(x).argmax(dim=1)


def changed(model: nn.Sequential, change: Callable[[nn.Parameter], object]) -> nn.Sequential:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            change(parameter)
    return other


BROKEN: dict[str, Callable[[nn.Parameter], object]] = {
    "NaN weights": lambda p: p.fill_(torch.nan),
    "infinite weights": lambda p: p.mul_(torch.inf),
    "weights x 1e38": lambda p: p.mul_(1e38).mul_(1e3),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("wrapped", [False, True])
def test_nan_is_counted_and_named(model, data, change, wrapped, tmp_path):
    x, y = data
    broken = changed(model, change)
    judged = classifier_around(broken, (1, 6, 6), 5) if wrapped else broken
    found = evaluate(
        judged,
        *(x.numpy(), y.numpy()),
        eps=EPS,
        attacks=["quick", "AutoAttack"],
        metrics=["clever_u", "loss_sensitivity"],
        state_dir=tmp_path,
    )
    assert [row.accuracy for row in found.rows] == [0.0] * 6
    assert found.notes[0] == (
        "the network returns NaN for 24 of 24 images, which count as misclassified"
    )
    assert "local flatness is NaN or infinite for 24 of 24 images" in found.notes
    plain = json.loads(found.to_json())
    assert plain["flatness"]["mean"] is None
    assert plain["per_sample"]["flatness"] == [None] * 24
    assert plain["metrics"]["clever_u"] is None
    assert any(note.startswith("clever_u is not measured: ") for note in plain["notes"])
    for text in (str(found), found.to_markdown(), found.to_latex()):
        assert "returns NaN for 24 of 24" in text
    report = masking_report(judged, x.numpy(), y.numpy(), eps=EPS)
    assert not report.judged
    assert not report.masked
    assert "Not judged: the model classifies 0 of 24 images correctly" in str(report)
    assert all(check.verdict == "not run" for check in report.checks)
    assert run_autoattack(judged, x.numpy(), y.numpy(), eps=EPS).accuracies == {"clean": 0.0}
    curve = accuracy_curve(judged, x.numpy(), y.numpy(), eps=[EPS])
    assert set(curve.summary().values()) == {0.0}
    flatness = local_flatness(judged, x.numpy(), y.numpy(), eps=EPS)
    assert np.isnan(flatness).all()


@pytest.mark.parametrize("factor", [1e20, 1e35])
def test_weights_that_are_too_large(model, data, factor):
    found = evaluate(changed(model, lambda p: p.mul_(factor)), *data, eps=EPS, attacks="quick")
    plain = json.loads(found.to_json())
    assert any("NaN" in note or "infinite" in note for note in plain["notes"])
    assert len(plain["rows"]) == 5


class NaNWhere(nn.Module):
    """NaN for bright images."""

    def __init__(self, network: nn.Module, limit: float) -> None:
        super().__init__()
        self.network, self.limit = network, limit

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(dim=1, keepdim=True) > self.limit
        return torch.where(bright, torch.nan, self.network(x))


def test_nan_for_some_images(model, data):
    x, y = data
    limit = float(x.flatten(1).mean(dim=1).median())
    found = evaluate(NaNWhere(model, limit), x, y, eps=EPS, attacks="quick")
    assert found.clean.accuracy == 0.5
    assert found.notes[0].startswith("the network returns NaN for 12 of 24 images")
    assert not found.correct["worst case"][~found.correct["clean"]].any()
    # Never reached by an attack: no note.
    assert "NaN" not in str(evaluate(NaNWhere(model, 2.0), x, y, eps=EPS, attacks="FGSM"))


def test_a_constant_network(model, data):
    x, y = data
    constant = changed(model, lambda p: p.zero_())
    constant[3].bias.data[2] = 1.0
    found = evaluate(constant, x, y, eps=EPS, attacks=["quick", "AutoAttack"])
    assert found.clean.accuracy == found.worst_case.accuracy == float((y == 2).double().mean())
    assert found.notes[0].startswith("the network names class 2 for all 24 images")
    assert json.loads(found.to_json())["flatness"]["mean"] == 0.0
    assert not masking_report(constant, x, y, eps=EPS).judged


@pytest.mark.parametrize("count", [1, 3])
def test_few_images_and_one_class(model, data, count):
    x, y = data
    same = (y == y[0]).nonzero().flatten()[:count]
    found = evaluate(model, x[same], y[same], eps=EPS, attacks=["quick", "AutoAttack"])
    assert found.clean.accuracy == 1.0
    assert not [note for note in found.notes if "names class" in note]
    json.loads(found.to_json())
    assert not masking_report(model, x[same], y[same], eps=EPS).judged


def test_a_network_without_gradients_in_x(model, data):
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model((16 * x).round().detach() / 16)

    found = evaluate(Rounded(), *data, eps=EPS, attacks="Square")
    assert 0 < found.worst_case.accuracy <= 1
    (note,) = (note for note in found.notes if "flatness" in note)
    assert note.startswith("local flatness is not measured: model gives a loss without gradients")
    assert json.loads(found.to_json())["flatness"]["mean"] is None
    for name in ("PGD-40", "AutoAttack"):
        with pytest.raises(ValueError, match=f"attacks has '{name}', which needs the gradient in"):
            evaluate(Rounded(), *data, eps=EPS, attacks=name)
    with pytest.raises(ValueError, match="version is 'standard', which needs the gradient in x"):
        run_autoattack(Rounded(), *data, eps=EPS)


class Scaled(nn.Module):
    """A linear network whose logits are so large that the softmax has no slope left."""

    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.scale = nn.Linear(16, 4), scale

    def forward(self, x):
        return self.scale * self.linear(x.flatten(1))


@pytest.mark.parametrize(("scale", "told"), [(1.0, False), (1e5, True)])
def test_a_flatness_of_exactly_0_is_told(scale, told):
    x, network = torch.rand(24, 1, 4, 4), Scaled(scale)
    y = network(x).argmax(dim=1)
    notes = evaluate(network, x, y, eps=0.01, attacks="FGSM").notes
    assert any("local flatness is exactly 0" in note for note in notes) == told


def test_probabilities_and_random_numbers_are_told():
    class Probabilities(Scaled):
        def forward(self, x):
            return super().forward(x).softmax(dim=1)

    class Noisy(Scaled):
        def forward(self, x):
            return super().forward(x + 1e-3 * torch.randn_like(x))

    x = torch.rand(24, 1, 4, 4)
    y = Scaled(1.0)(x).argmax(dim=1)
    for kind, words in ((Probabilities, "are probabilities"), (Noisy, "draws random numbers")):
        notes = evaluate(kind(1.0), x, y, eps=0.01, attacks="FGSM").notes
        assert any(words in note for note in notes)
    plain = evaluate(Scaled(1.0), x, y, eps=0.01, attacks="FGSM").notes
    assert not any("probabilities" in note or "random numbers" in note for note in plain)


def test_attacks_that_break_far_more_than_pgd_are_told():
    followed = np.ones(100, dtype=bool)
    broken = np.arange(100) >= 14
    assert _misled({"PGD-40": followed, "APGD-T": broken}) == []
    (note,) = _misled({"PGD-40": followed, "Square": broken})
    assert note.startswith("Square breaks 14 % of the images that PGD-40 leaves right")
    assert _misled({"Square": broken}) == []
    assert _misled({"PGD-40": broken, "Square": broken}) == []
