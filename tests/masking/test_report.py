"""The masking report flags models that hide their gradients and passes an honest one."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from art_lfr import masking_report
from art_lfr.attacks.target import make_target
from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Ball, Box
from art_lfr.core.pgd import projected_gradient_descent
from art_lfr.data import digits
from art_lfr.masking.evidence import AscentTrace, flags_of
from art_lfr.masking.report import CHECKS
from art_lfr.models import digits_cnn

EPS = 0.1
IMAGES = 60


def train(adversarially):
    """A digits network, by plain or by PGD adversarial training (Madry et al.)."""
    model, data = digits_cnn(), digits()
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    ball = Ball(EPS, math.inf, Box.from_bounds((0.0, 1.0), x))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(10):
        for chosen in torch.randperm(len(x), generator=generator).split(64):
            batch = x[chosen]
            if adversarially:
                batch = projected_gradient_descent(
                    model,
                    Criterion(None),
                    batch,
                    y[chosen],
                    ball=ball,
                    steps=5,
                    step_size=EPS / 2,
                    start=ball.random_point(batch, generator),
                )
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), y[chosen]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def standard():
    return train(adversarially=False)


class Saturated(nn.Module):
    """Logits so large that the softmax is exactly one-hot in float32: its gradient is zero."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return 1e4 * self.network(x)


class Quantised(Saturated):
    """Input rounded to nine grey levels: no gradient passes, small noise is removed."""

    def forward(self, x):
        return self.network((8 * x).round() / 8)


class Probabilities(Saturated):
    """Probabilities in place of logits."""

    def forward(self, x):
        return self.network(x).softmax(dim=1)


def report(model, **keywords):
    data = digits()
    x, y = data.x_validation[:IMAGES], data.y_validation[:IMAGES]
    return masking_report(model, x, y, eps=EPS, **keywords)


def verdicts(found):
    return {check.name: check.verdict for check in found.checks}


def test_adversarial_training_passes(standard):
    model = train(adversarially=True)
    surrogate = copy.deepcopy(standard).train()
    for parameter in surrogate.parameters():
        parameter.grad = torch.ones_like(parameter)
    found = report(model, surrogate=surrogate)
    assert surrogate.training  # left as it was
    assert all(bool((parameter.grad == 1).all()) for parameter in surrogate.parameters())
    assert not found.masked, str(found)
    assert set(verdicts(found).values()) <= {"pass", "warn"}
    assert len(found.checks) == len(CHECKS) + 1  # and AutoAttack's flags
    assert found["accuracy falls to 0 as eps grows"].figure == 0
    assert "No s" in str(found)
    data = digits()
    with torch.no_grad():
        labels = model(torch.from_numpy(data.x_validation[:IMAGES])).argmax(dim=1).numpy()
    right = int((labels == data.y_validation[:IMAGES]).sum())
    assert found.correct == right
    printed = " ".join(str(found).split())
    assert f"per cent of the {right} of {IMAGES} images that are right without" in printed
    assert "end on none" in found["PGD-40 ends on what it finds"].found


def test_saturated_logits_are_flagged(standard):
    found = report(Saturated(standard))
    assert found.masked
    failed = {name for name, verdict in verdicts(found).items() if verdict == "fail"}
    assert {"gradients are not zero", "the loss rises under attack"} <= failed
    assert "the cross-entropy is a good enough guide" in failed  # APGD-T does not mind the scale
    assert found["gradients are not zero"].figure > 90
    unrun = found["transferred examples find nothing that gradients miss"]
    assert unrun.verdict == "not run"
    assert "surrogate" in unrun.found


def test_a_quantised_input_is_flagged(standard):
    found = report(Quantised(standard), surrogate=standard)
    failed = {name for name, verdict in verdicts(found).items() if verdict == "fail"}
    assert {
        "black-box attacks find nothing that gradients miss",
        "transferred examples find nothing that gradients miss",
        "accuracy falls to 0 as eps grows",
        "gradients are not zero",
        "AutoAttack warns of nothing",
    } <= failed
    assert "Gradient masking is likely" in found.to_markdown()
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["masked"] is True
    assert plain["checks"][0]["name"] == found.checks[0].name


def test_flags_of_auto_attack_are_found(standard):
    data = digits()
    x, y = data.x_test[:20], data.y_test[:20]

    def flags(model):
        return flags_of(make_target(model, x, y, eps=EPS, batch_size=20))

    assert flags(standard) == []
    (flag,) = flags(Probabilities(standard))
    assert "probability distribution" in flag
    (flag,) = flags(Saturated(standard))
    assert "zero gradient" in flag
    random = nn.Sequential(standard, nn.Dropout(0.5))
    random[1].eval = lambda: None  # a defence that stays random at test time
    random[1].train = lambda mode=True: random[1]
    assert any("randomized" in flag for flag in flags(random))


def test_indicators_of_a_trace():
    """Three samples: never broken and flat; broken on the way only; broken to the end."""
    trace = AscentTrace(
        loss=torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.9, 0.6], [0.5, 0.9, 1.2]]),
        wrong=torch.tensor([[False] * 3, [False, True, False], [False, True, True]]),
        zero_gradient=torch.tensor([[True, False], [False, True], [False, True]]),
    )
    assert trace.broken.tolist() == [False, True, True]
    assert trace.silent_successes.tolist() == [False, True, False]
    assert trace.share_of_zero_gradients == 1 / 4  # of the four steps on samples not yet broken
    assert trace.share_of_unmoved_losses == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 0}, "eps is 0"),
        ({"bounds": None}, "finite bounds"),
        ({"norm": 7}, "norm is 7"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments(standard, change, message):
    data = digits()
    keywords = {"eps": EPS, **change}
    with pytest.raises(ValueError, match=message):
        masking_report(standard, data.x_test[:30], data.y_test[:30], **keywords)


def test_a_model_that_is_mostly_wrong_is_not_judged(standard):
    data = digits()
    wrong = (data.y_test[:50] + 1) % 10
    found = masking_report(standard, data.x_test[:50], wrong, eps=EPS)
    assert {check.verdict for check in found.checks} == {"not run"}
    assert len(found.checks) == len(CHECKS) + 1
    assert not found.judged
    assert not found.masked
    assert found.to_dict()["judged"] is False
    for text in (str(found), found.to_markdown()):
        assert "Not judged: the model classifies" in text
        assert "No sign" not in text
