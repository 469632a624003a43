"""The figures show the numbers they were given."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from art_lfr.plots import (
    gradient_maps,
    gradients_figure,
    loss_surface,
    save_figure,
    surface_figure,
    vulnerability,
    vulnerability_figure,
)
from art_lfr.plots.drawing import new_figure
from art_lfr.plots.measured import Vulnerability

EPS = 0.1


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return {name: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)) for name in ("first", "second")}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2])


def result(vulnerable, flatness, **changes):
    count = len(flatness)
    return Vulnerability(
        **{
            "eps": EPS,
            "norm": "2",
            "labels": np.zeros(count, dtype=int),
            "loss": np.zeros(count),
            "vulnerability": np.array(vulnerable),
            "flatness": np.array(flatness),
            **changes,
        }
    )


def test_vulnerability_figure(tmp_path):
    honest = result([0.05, 0.1], [1.0, 2.0])
    broken = result([0.5, 0.1, 0.0], [1.0, 2.0, 3.0])
    figure = vulnerability_figure({"honest": honest, "broken": broken})
    (axes,) = figure.axes
    line, points, low, above = axes.lines
    np.testing.assert_allclose(line.get_ydata(), EPS * np.array(line.get_xdata()))
    assert list(points.get_xdata()) == [1, 2]
    assert list(points.get_ydata()) == [0.05, 0.1]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[1].startswith("honest (rank correlation")
    assert labels[3] == "broken, above the bound: 1"
    assert (list(above.get_xdata()), list(above.get_ydata())) == ([1.0], [0.5])
    assert above.get_color() == low.get_color() != points.get_color()
    assert low.get_marker() != points.get_marker()  # told apart without colours too
    # What a logarithmic axis cannot show lies on its edge.
    assert low.get_ydata()[1] == axes.get_ylim()[0] > 0
    save_figure(figure, tmp_path / "figure.png")


def test_results_that_cannot_be_compared():
    with pytest.raises(ValueError, match="results is empty"):
        vulnerability_figure({})
    pair = {"a": result([0.1], [1.0]), "b": result([0.1], [1.0], eps=0.2)}
    with pytest.raises(ValueError, match=r"results\['b'\] differs .* the same eps and norm"):
        vulnerability_figure(pair)


@pytest.mark.parametrize("view", ["contours", "3d"])
def test_surface_figure(networks, data, tmp_path, view):
    x, y = data
    results = {
        name: loss_surface(net, x[:2], y[:2], eps=EPS, points=5, steps=2)
        for name, net in networks.items()
    }
    figure = surface_figure(results, view=view)
    save_figure(figure, tmp_path / "figure.png")
    if view == "3d":
        assert [axes.get_title() for axes in figure.axes] == [
            f"{name}, sample {i} (label {i - 1})" for i in (1, 2) for name in networks
        ]
        for row in (figure.axes[:2], figure.axes[2:]):
            assert row[0].get_zlim() == row[1].get_zlim()
        # The triangle lies on (1, 0), at the adversarial loss.
        _, *marked = [line.get_data_3d() for line in figure.axes[3].lines]
        np.testing.assert_allclose(np.ravel(marked[0]), [0, 0, results["second"].clean[1]])
        np.testing.assert_allclose(np.ravel(marked[1]), [1, 0, results["second"].adversarial[1]])
    else:
        *panels, bar = figure.axes
        assert [axes.get_title() for axes in panels] == ["first", "second", "", ""]
        assert [axes.get_ylabel() for axes in panels[::2]] == [
            "sample 1 (label 0)",
            "sample 2 (label 1)",
        ]
        less, *shown = [label.get_text() for label in bar.get_yticklabels()]
        assert less == "less"
        highest = max(float(result.losses.max()) for result in results.values())
        assert highest <= float(shown[-1])
        sets = [axes.collections[0] for axes in panels]
        levels = {tuple(found.levels) for found in sets if hasattr(found, "levels")}
        assert len(levels) <= 1  # colours can be compared (matplotlib before 3.8 does not say)
        assert bar.get_ylabel() == "loss (nats)"
        np.testing.assert_allclose(panels[3].lines[1].get_xydata(), results["second"].edge[1])
    other = loss_surface(networks["first"], x[1:], y[1:], eps=EPS, points=5, steps=2)
    with pytest.raises(ValueError, match="the same eps, norm, samples and points"):
        surface_figure({**results, "other": other}, view=view)
    with pytest.raises(ValueError, match="view is 'map'"):
        surface_figure(results, view="map")


@pytest.mark.parametrize("view", ["contours", "3d"])
def test_losses_that_are_not_finite(networks, data, view):
    x, y = data
    found = loss_surface(networks["first"], x[:1], y[:1], eps=EPS, points=5, steps=2)
    for value in (np.nan, np.inf):
        broken = replace(found, losses=np.full_like(found.losses, value))
        with pytest.raises(ValueError, match=r"results\['b'\] has NaN or infinite losses"):
            surface_figure({"a": found, "b": broken}, view=view)
    surface_figure({"below": replace(found, losses=found.losses - 10)}, view=view)
    with pytest.raises(TypeError, match="results is a LossSurface; allowed: a mapping"):
        surface_figure(found, view=view)


@pytest.mark.parametrize("view", ["contours", "3d"])
def test_a_constant_network_has_no_adversarial_direction(data, tmp_path, view):
    constant = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    for parameter in constant.parameters():
        nn.init.zeros_(parameter)
    found = loss_surface(constant, *data, eps=EPS, points=5, steps=2)
    assert np.isnan(found.edge).any()
    assert not np.isinf(found.edge).any()
    save_figure(surface_figure({"constant": found}, view=view), tmp_path / "figure.png")


def test_eight_networks_are_told_apart():
    figure = vulnerability_figure({str(i): result([0.1, 0.2], [1.0, 2.0]) for i in range(8)})
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines[1:]}
    assert len(looks) == 8


def test_gradients_figure(networks, data, tmp_path):
    x, y = data
    results = {name: gradient_maps(net, x, y) for name, net in networks.items()}
    figure = gradients_figure(results, shown=2)
    assert len(figure.axes) == 2 * 3
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), x[0].permute(1, 2, 0))
    shown = figure.axes[5].images[0].get_array()
    np.testing.assert_allclose(shown, results["second"].gradients[1].sum(axis=0))
    title = figure.axes[5].get_title()
    assert f"alignment {results['second'].alignment[1]:.2f}" in title
    assert f"sparsity {results['second'].sparsity[1]:.2f}" in title
    assert f"darkest: {abs(shown).max():.1g} nats per unit" in title
    mean = results["first"].sparsity.mean()
    assert f"mean sparsity {mean:.2f}\n(3 samples)" in figure.axes[1].get_title()
    save_figure(figure, tmp_path / "figure.png")
    flat = gradient_maps(networks["first"], x.flatten(1), y)
    with pytest.raises(ValueError, match=r"x has shape \(3, 192\); allowed: images"):
        gradients_figure({"flat": flat})
    with pytest.raises(ValueError, match="the same samples"):
        gradients_figure({**results, "third": gradient_maps(networks["first"], x[:2], y[:2])})


@pytest.mark.parametrize(
    ("ending", "head"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
)
def test_saved_figures(tmp_path, ending, head):
    contents = []
    for name in ("a", "b"):
        figure = new_figure(2, 2)
        figure.subplots().plot([0, 1], [0, 1])
        save_figure(figure, tmp_path / (name + ending))
        contents.append((tmp_path / (name + ending)).read_bytes())
    assert contents[0].startswith(head)
    assert contents[0] == contents[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a" + ending, "b" + ending]
    with pytest.raises(ValueError, match=r"ending in \.png or \.pdf or \.svg"):
        save_figure(figure, tmp_path / "figure.jpg")


def test_missing_matplotlib_names_the_fix(monkeypatch, networks, data):
    found = vulnerability(networks["first"], *data, eps=EPS, steps=1, restarts=1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "art-lfr\[plots\]"'):
        vulnerability_figure({"first": found})
