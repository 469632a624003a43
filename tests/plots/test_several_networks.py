"""Figures of several networks side by side, from the networks to the image."""

import io
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from art_lfr.plots import gradient_maps, gradients_figure, loss_surface, surface_figure
from art_lfr.plots.drawing import training_curves

EPS = 0.1


@pytest.fixture
def models():
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4))  # noqa: E731
    return {"first": make(), "second": make()}


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2])


def loss_surfaces(models, x, y, **keywords):
    return surface_figure(
        {name: loss_surface(model, x, y, **keywords) for name, model in models.items()}
    )


def input_gradient_maps(models, x, y):
    maps = {name: gradient_maps(model, x, y) for name, model in models.items()}
    return gradients_figure(maps, shown=len(x))


def png(figure):
    assert isinstance(figure, Figure)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=40)
    assert image.getvalue().startswith(b"\x89PNG")


def legend_of(figure):
    (legend,) = figure.legends
    return list(zip(legend.get_texts(), legend.get_lines(), strict=True))


def test_training_curves_draw_what_is_there():
    full = [
        {
            "epoch": epoch,
            "clean_loss": 1 / epoch,
            "flatness": 2 / epoch,
            "train_accuracy": 0.5,
            "validation_robust_accuracy": 0.25,
        }
        for epoch in (1, 2, 3)
    ]
    partial = [{"epoch": 1, "validation_robust_accuracy": 0.1}]
    many = training_curves({str(number): full for number in range(9)})
    assert len(many.axes[0].get_lines()) == 9 * len(training_curves({"": full}).axes[0].get_lines())
    figure = training_curves({"LFR": full, "standard": partial, "empty": []})
    accuracy, loss, flatness = figure.axes
    lines = {line.get_label(): line for line in accuracy.lines}
    np.testing.assert_allclose(lines["LFR, validation, PGD-10"].get_ydata(), [25, 25, 25])
    np.testing.assert_allclose(lines["standard, validation, PGD-10"].get_xdata(), [1])
    assert [len(axes.lines) for axes in (accuracy, loss, flatness)] == [3, 1, 1]
    assert "nats" in loss.get_ylabel()
    # A style means one thing in every panel, and the legend of the figure says which.
    styles = {text.get_text(): line.get_linestyle() for text, line in legend_of(figure)}
    assert styles["training"] == loss.lines[0].get_linestyle() == flatness.lines[0].get_linestyle()
    assert styles["validation, PGD-10"] == accuracy.lines[1].get_linestyle()
    assert len(set(styles.values())) == 3
    png(figure)
    with pytest.raises(TypeError, match="histories is a list; allowed: a mapping"):
        training_curves(full)
    with pytest.raises(ValueError, match="histories has no epoch"):
        training_curves({"LFR": [{"other": 1.0}]})


def test_loss_surfaces(models, batch):
    x, y = batch
    figure = loss_surfaces(models, x[:2], y[:2], eps=EPS, points=5)
    assert [axes.get_title() for axes in figure.axes[:4]] == ["first", "second", "", ""]
    png(figure)


def test_input_gradient_maps(models, batch):
    x, y = batch
    figure = input_gradient_maps(models, x, y)
    assert len(figure.axes) == 9
    leaf = x.clone().requires_grad_(True)
    nn.functional.cross_entropy(models["second"](leaf), y, reduction="sum").backward()
    shown = figure.axes[2].images[0].get_array()
    np.testing.assert_allclose(shown, leaf.grad[0, 0], rtol=1e-4, atol=1e-7)
    png(figure)
    with pytest.raises(ValueError, match="x has shape"):
        input_gradient_maps(models, x[:, 0], y)


def test_models_are_left_as_found(models, batch):
    for model in models.values():
        model.train()
    state = torch.get_rng_state()
    loss_surfaces(models, *batch, eps=EPS, points=3)
    input_gradient_maps(models, *batch)
    assert all(m.training for model in models.values() for m in model.modules())
    assert all(p.requires_grad for model in models.values() for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(2), r"y has shape \(2,\)"),
        (torch.zeros(3, 5), r"y has shape \(3, 5\)"),
        (torch.full((3,), 4), "0 to 3"),
    ],
)
def test_bad_labels(models, batch, y, message):
    with pytest.raises(ValueError, match=message):
        loss_surfaces(models, batch[0], y, eps=EPS)


def test_missing_matplotlib_names_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "art-lfr\[plots\]"'):
        training_curves({"LFR": [{"loss": 1.0, "clean_loss": 1.0}]})
