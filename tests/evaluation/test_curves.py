import math

import pytest
import torch
from torch import nn

from art_lfr.evaluation.curves import accuracy_curve, curve_figure


@pytest.fixture
def problem():
    """Linear logits of five classes: the exact robust accuracy is known for every eps."""
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = 0.3 + 0.4 * torch.rand(30, 1, 4, 4, generator=generator)
    y = model(x).argmax(dim=1)
    y[:3] = (y[:3] + 1) % 5
    return model, x, y


def exact(model, x, y, eps):
    weight = model[1].weight.detach()
    logits = model(x).detach()
    margins = logits.gather(1, y[:, None]) - logits
    margins -= eps * (weight[y][:, None] - weight[None]).abs().sum(dim=2)
    margins[torch.arange(len(y)), y] = math.inf
    return float((margins > 0).all(dim=1).double().mean())


def test_the_curve_is_the_exact_one_and_never_rises(problem):
    model, x, y = problem
    curve = accuracy_curve(model, x, y, eps=[0.04, 0.01, 0.02, 0.2], attacks=["PGD-40", "APGD-CE"])
    assert curve.eps == (0.0, 0.01, 0.02, 0.04, 0.2)
    accuracies = [row.accuracy for row in curve.rows]
    assert accuracies[0] == 27 / 30
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] == 0
    for eps, accuracy in zip(curve.eps, accuracies, strict=True):
        assert exact(model, x, y, eps) <= accuracy <= exact(model, x, y, eps) + 1 / 30
    assert 0.1 < accuracies[1] < 0.9
    frame = curve.to_frame()
    assert list(frame.eps) == list(curve.eps)
    assert list(frame.accuracy) == accuracies
    assert curve.to_dict()["points"][1]["eps"] == 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": []}, r"eps is \[\]; allowed: a list of numbers > 0"),
        ({"eps": 0.1}, "eps is 0.1; allowed: a list"),
        ({"eps": [0.1, -1]}, "eps is -1; allowed: a finite number > 0"),
        ({"attacks": "JSMA"}, "attacks has 'JSMA', which is no attack in the ball"),
        ({"norm": 3}, "norm is 3"),
    ],
)
def test_bad_arguments(problem, change, message):
    model, x, y = problem
    with pytest.raises(ValueError, match=message):
        accuracy_curve(model, x, y, **{"eps": [0.1], **change})


def test_figure_shows_the_points(problem, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    model, x, y = problem
    curve = accuracy_curve(model, x, y, eps=[0.01, 0.05], attacks="PGD-40")
    (axes,) = curve_figure({"mine": curve, "again": curve}).axes
    first = axes.lines[0]
    assert first.get_label() == "mine"
    assert list(first.get_xdata()) == [0, 0.01, 0.05]
    assert axes.get_ylabel() == "accuracy under attack (%)"
    assert axes.get_title().startswith(f"Worst case of PGD-40; {len(x)} images")
    assert list(first.get_ydata()) == [100 * row.accuracy for row in curve.rows]
    with pytest.raises(ValueError, match="one norm"):
        curve_figure({})
