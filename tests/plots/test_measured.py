"""What the figures are made of, against closed forms."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from lfr_testing import Recorder, classifier_around
from torch import nn

from art_lfr import local_flatness
from art_lfr.core.geometry import steepest_direction
from art_lfr.core.randomness import normal_like
from art_lfr.plots import alignment, gradient_maps, hoyer_sparsity, loss_surface, vulnerability
from art_lfr.plots.measured import Vulnerability
from art_lfr.plots.problem import make_problem, strongest_examples

NORMS = [math.inf, 2, 1]
DUAL = {math.inf: 1, 2: 2, 1: math.inf}
EPS = 0.05


def slope(outputs, y):
    """A loss that is linear in the logits."""
    return outputs[:, 0] - outputs[:, 1]


def bowl(outputs, y):
    return 0.5 * outputs.pow(2).sum(dim=1)


@pytest.fixture
def linear():
    """A linear network, inputs in the middle of the box, and the gradient of `slope`."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = 0.3 + 0.4 * torch.rand(7, 1, 4, 4, generator=generator)
    y = torch.randint(3, (7,), generator=generator)
    return model, x, y, (model[1].weight[0] - model[1].weight[1]).detach()


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_loss_attains_the_bound(linear, norm):
    model, x, y, w = linear
    found = vulnerability(model, x, y, eps=EPS, norm=norm, loss=slope, steps=4, restarts=2)
    size = float(torch.linalg.vector_norm(w, ord=DUAL[norm]))
    np.testing.assert_allclose(found.flatness, size, rtol=1e-5)
    np.testing.assert_allclose(found.vulnerability, EPS * size, rtol=1e-4)
    np.testing.assert_allclose(found.bound, EPS * size, rtol=1e-5)
    assert not found.violated.any()
    assert found.norm == f"{norm:g}"
    np.testing.assert_allclose(found.loss, slope(model(x), y).detach(), rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_a_bowl_has_known_flatness_and_vulnerability(norm):
    model = nn.Flatten()
    x = torch.tensor([[[1.0, -2.0, 0.5]], [[0.3, 0.2, -0.1]]])
    found = vulnerability(
        model, x, torch.zeros(2).long(), eps=0.5, norm=norm, loss=bowl, bounds=None, steps=30
    )
    size = torch.linalg.vector_norm(x.flatten(1), ord=DUAL[norm], dim=1).numpy()
    # The largest ||x'||^2 / 2 is at x + eps * (the dual vector of x), and so is ||x'||_q.
    flatness = size + (3 * 0.5 if norm == math.inf else 0.5)
    rise = 0.5 * size + {math.inf: 3 * 0.125, 2: 0.125, 1: 0.125}[norm]
    np.testing.assert_allclose(found.flatness, flatness, rtol=1e-4)
    np.testing.assert_allclose(found.vulnerability, rise, rtol=1e-4)
    assert (found.vulnerability < found.bound).all()


def test_the_box_cuts_the_ball(linear):
    model, _, y, w = linear
    x = torch.zeros(7, 1, 4, 4)
    found = vulnerability(model, x, y, eps=EPS, loss=slope, steps=4, restarts=1)
    np.testing.assert_allclose(found.vulnerability, EPS * float(w.clamp(min=0).sum()), rtol=1e-4)


def test_nothing_rises_from_a_peak():
    def peak(outputs, y):
        """0 at 0, less elsewhere; autograd takes a slope between those of the two sides."""
        return -torch.maximum(outputs, -2 * outputs).sum(dim=1)

    x, y = torch.zeros(2, 3), torch.zeros(2).long()
    found = vulnerability(nn.Flatten(), x, y, eps=0.5, norm=2, loss=peak, bounds=None, steps=3)
    assert (found.vulnerability == 0).all()
    assert (found.flatness > 0).all()


def test_the_strongest_example_is_the_best_of_all_tried(smooth, batch, monkeypatch):
    x, y = batch(4, 6, dtype=torch.float32)
    model = Recorder(smooth().float())
    problem = make_problem(model, x, y, eps=0.9)
    model.inputs.clear()
    points, losses = strongest_examples(problem, steps=4, restarts=3)

    def loss_at(inputs):
        return nn.functional.cross_entropy(model.network(inputs), y, reduction="none").detach()

    tried = torch.stack([loss_at(inputs) for inputs in model.inputs[1:]])  # the first is clean
    torch.testing.assert_close(losses, tried.amax(dim=0))
    torch.testing.assert_close(losses, loss_at(points))
    # The end of an ascent counts as well, which no gradient is taken at.
    monkeypatch.setattr("art_lfr.plots.problem.projected_gradient_descent", lambda *_, **__: points)
    _, again = strongest_examples(replace(problem, seed=1), steps=4, restarts=3)
    assert (again >= losses - 1e-6).all()


def test_flatness_is_that_of_local_flatness(smooth, batch):
    model = smooth().float()
    x, y = batch(9, 6, dtype=torch.float32)
    settings = {"eps": 0.2, "steps": 5, "restarts": 3, "batch_size": 4, "seed": 3}
    found = vulnerability(model, x, y, **settings)
    np.testing.assert_allclose(found.flatness, local_flatness(model, x, y, **settings), rtol=1e-5)
    assert (found.vulnerability >= 0).all()
    once = vulnerability(model, x, y, **{**settings, "restarts": 1, "steps": 1})
    assert (found.flatness >= once.flatness - 1e-6).all()
    assert found.flatness.sum() > once.flatness.sum()


def test_violations_are_counted_and_left_in():
    found = Vulnerability(
        eps=0.5,
        norm="inf",
        labels=np.array([0, 1, 2]),
        loss=np.array([0.0, 1.0, 2.0]),
        vulnerability=np.array([0.4, 1.5, 1.0 + 1e-7]),
        flatness=np.array([1.0, 2.0, 2.0]),
    )
    assert found.violated.tolist() == [False, True, False]
    assert found.summary()["bound violated"] == 1
    assert found.summary()["median vulnerability / bound"] == pytest.approx(1.0)
    frame = found.to_frame()
    assert frame.vulnerability.tolist() == found.vulnerability.tolist()
    assert frame.bound.tolist() == [0.5, 1.0, 1.0]
    # Ranks of LF: 1, 2.5, 2.5; of V: 1, 3, 2.
    assert found.rank_correlation == pytest.approx(math.sqrt(3) / 2)


def test_a_classifier_gives_what_its_module_gives(smooth, batch):
    model = smooth().float()
    x, y = batch(5, 6, dtype=torch.float32)
    loss = nn.CrossEntropyLoss(label_smoothing=0.3)
    classifier = classifier_around(model, (6,), 3, loss=loss)
    arrays = x.numpy(), np.eye(3)[y.numpy()]
    settings = {"eps": 0.1, "steps": 3, "restarts": 2}
    pairs = [
        [measure(model, x, y, loss=loss, **keywords), measure(classifier, *arrays, **keywords)]
        for measure, keywords in (
            (vulnerability, settings),
            (loss_surface, {**settings, "points": 3}),
            (gradient_maps, {}),
        )
    ]
    for plain, wrapped in pairs:
        one, other = (result.to_frame().to_numpy(dtype=float) for result in (plain, wrapped))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"bounds is .* beside the model's clip_values"):
        vulnerability(classifier, *arrays, bounds=(0.0, 2.0), **settings)


def test_surface_of_a_linear_loss_is_a_plane(linear):
    model, x, y, w = linear
    for norm in NORMS:
        found = loss_surface(model, x[:2], y[:2], eps=EPS, norm=norm, loss=slope, steps=3)
        reach, centre = found.reach, len(found.reach) // 2
        one = int(np.flatnonzero(np.isclose(reach, 1.0))[0])
        assert found.losses.shape == (2, 25, 25)
        assert (reach[centre], reach[-1]) == (0.0, 1.5)
        clean = slope(model(x[:2]), y[:2]).detach().numpy()
        rise = EPS * float(torch.linalg.vector_norm(w, ord=DUAL[norm]))
        close = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(found.clean, clean, **close)
        np.testing.assert_allclose(found.losses[:, centre, centre], clean, **close)
        np.testing.assert_allclose(found.adversarial, clean + rise, **close)
        np.testing.assert_allclose(found.losses[:, one, centre], found.adversarial, **close)
        np.testing.assert_allclose(found.losses[:, centre, one], found.random, **close)
        along = found.losses[:, :, centre] - clean[:, None]
        np.testing.assert_allclose(along, np.tile(reach * rise, (2, 1)), **close)
        across = found.losses[:, centre] - clean[:, None]
        np.testing.assert_allclose(across, reach * across[:, one : one + 1], **close)
        assert (np.abs(across[:, one]) <= 1.0001 * rise).all()
        assert (np.abs(across[:, one]) > 1e-4 * rise).all()


def test_random_direction_is_the_same_for_every_model_and_its_length_is_eps():
    x, y = torch.full((1, 1, 10, 10), 0.5), torch.tensor([0])
    for norm in NORMS:
        offsets = []
        for sign in (1.0, -1.0):
            model = Recorder(nn.Sequential(nn.Flatten(), nn.Linear(100, 2)))
            with torch.no_grad():
                model.network[1].weight.mul_(sign)
            loss_surface(model, x, y, eps=EPS, norm=norm, steps=1, restarts=1, points=3)
            # The last batch of one is the random step alone.
            offsets.append(model.inputs[-1] - x)
        assert torch.equal(*offsets)
        length = torch.linalg.vector_norm(offsets[0].flatten(), ord=norm)
        assert float(length) == pytest.approx(EPS, rel=1e-4)
        other = Recorder(nn.Sequential(nn.Flatten(), nn.Linear(100, 2)))
        loss_surface(other, x, y, eps=EPS, norm=norm, steps=1, restarts=1, points=3, seed=1)
        assert not torch.equal(other.inputs[-1] - x, offsets[0])


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_the_edge_is_where_the_plane_leaves_the_ball(linear, norm):
    model, x, y, _ = linear
    found = loss_surface(model, x, y, eps=EPS, norm=norm, points=3, steps=2, bounds=None)
    settings = {"eps": EPS, "norm": norm, "bounds": None}
    problem = make_problem(model, x, y, **settings)
    strongest, _ = strongest_examples(problem, steps=2, restarts=5)
    noise = normal_like(x, torch.Generator().manual_seed(0))
    random = EPS * steepest_direction(noise, problem.ball.p)
    a, b = torch.from_numpy(found.edge).permute(2, 0, 1).float()
    d, r = (strongest - x).flatten(1), random.flatten(1)
    moved = a[..., None] * d[:, None] + b[..., None] * r[:, None]
    length = torch.linalg.vector_norm(moved, ord=norm, dim=-1)
    torch.testing.assert_close(length, torch.full_like(length, EPS), rtol=1e-4, atol=0)
    np.testing.assert_allclose(found.edge[:, 0], found.edge[:, -1], atol=1e-5)


def test_surface_stays_in_the_box_and_is_the_cross_entropy(smooth, batch):
    x, y = batch(2, 6, dtype=torch.float32)
    model = Recorder(smooth().float())
    found = loss_surface(model, x, y, eps=0.8, points=7, steps=3, bounds=(0.0, 1.0))
    # Ascent directions of the flatness are not in play here: every input is a point of the figure.
    assert min(float(i.min()) for i in model.inputs) >= 0
    assert max(float(i.max()) for i in model.inputs) <= 1
    expected = nn.functional.cross_entropy(model.network(x), y, reduction="none")
    np.testing.assert_allclose(found.clean, expected.detach(), rtol=1e-5)
    assert (found.adversarial > found.clean).all()
    frame = found.to_frame()
    assert len(frame) == 2 * 7 * 7
    row = frame[
        (frame["index"] == 1) & np.isclose(frame.adversarial, 1) & np.isclose(frame.random, 0)
    ]
    assert row.loss.tolist() == pytest.approx([found.adversarial[1]], rel=1e-4)


def test_hoyer_sparsity():
    one_hot = np.zeros((1, 3, 4))
    one_hot[0, 1, 2] = -7
    assert hoyer_sparsity(one_hot)[0] == pytest.approx(1.0)
    assert hoyer_sparsity(np.full((1, 12), -0.3))[0] == pytest.approx(0.0, abs=1e-12)
    g = np.random.default_rng(0).normal(size=(4, 3, 5))
    expected = hoyer_sparsity(g)
    assert ((expected > 0) & (expected < 1)).all()
    for factor in (1e-30, 1e30):
        np.testing.assert_allclose(hoyer_sparsity(factor * g), expected, rtol=1e-9)
    # (sqrt 4 - 7/5) / (sqrt 4 - 1)
    assert hoyer_sparsity(np.array([[3.0, 4.0, 0.0, 0.0]]))[0] == pytest.approx(0.6)
    assert np.isnan(hoyer_sparsity(np.zeros((2, 4)))).all()
    with pytest.raises(ValueError, match="at least two entries"):
        hoyer_sparsity(np.ones((2, 1)))


def test_alignment():
    x = np.random.default_rng(0).normal(size=(4, 1, 3, 3))
    lengths = np.linalg.norm(x.reshape(4, -1), axis=1)
    for factor in (1.0, -1e-25, 1e25):
        np.testing.assert_allclose(alignment(x, factor * x), lengths)
    np.testing.assert_allclose(alignment(3 * x, x), 3 * lengths)
    across = np.array([[2.0, -1.0]])
    assert alignment(np.array([[1.0, 2.0]]), across)[0] == pytest.approx(0, abs=1e-12)
    assert np.isnan(alignment(x, 0 * x)).all()
    with pytest.raises(ValueError, match="the same shape"):
        alignment(x, x[:2])


def test_gradient_maps(smooth, batch):
    model = smooth().float()
    x, y = batch(6, 6, dtype=torch.float32)
    x = 3 * x  # nothing here is bound to [0, 1]
    found = gradient_maps(model, x, y, batch_size=4)
    leaf = x.clone().requires_grad_(True)
    nn.functional.cross_entropy(model(leaf), y, reduction="sum").backward()
    np.testing.assert_allclose(found.gradients, leaf.grad, rtol=1e-4, atol=1e-7)
    sizes = np.linalg.norm(x.numpy(), axis=1)
    np.testing.assert_allclose(found.cosine, found.alignment / sizes, rtol=1e-6)
    np.testing.assert_allclose(found.size, leaf.grad.abs().sum(dim=1), rtol=1e-4)
    assert (found.cosine <= 1).all()


def test_samples_without_a_gradient_are_left_out_of_the_means():
    x = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
    found = gradient_maps(
        nn.Flatten(), x, torch.zeros(3).long(), loss=lambda out, y: (out[:, 0] - 1) ** 2
    )
    assert np.isnan(found.sparsity).tolist() == [True, False, True]
    summary = found.summary()
    assert (summary["samples"], summary["with a gradient"]) == (3, 1)
    assert summary["mean sparsity"] == pytest.approx(1.0)
    assert summary["mean alignment"] == pytest.approx(2.0)


def test_everything_is_left_as_found(smooth, batch):
    model = smooth(dropout=0.5).float()
    x, y = batch(3, 6, dtype=torch.float32)
    model.train()
    model[1].eval()
    model[4].weight.requires_grad_(False)
    nn.functional.cross_entropy(model(x), y).backward()
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    drawn = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    first = vulnerability(model, x, y, eps=0.1, steps=2, restarts=2)
    loss_surface(model, x, y, eps=0.1, points=3, steps=2)
    gradient_maps(model, x, y)
    assert (torch.rand(1), np.random.rand(), random.random()) == drawn
    assert [m.training for m in model] == [True, False, *[True] * 5]
    assert [p.requires_grad for p in model.parameters()] == [True, True, False, True, True, True]
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    again = vulnerability(model, x, y, eps=0.1, steps=2, restarts=2)
    assert first.to_frame().equals(again.to_frame())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 0.0}, "eps is 0.0; allowed: a finite number > 0"),
        ({"norm": 3}, "norm is 3"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"bounds": (0.4, 0.5)}, "x has values from"),
    ],
)
@pytest.mark.parametrize("measure", [vulnerability, loss_surface])
def test_bad_arguments(linear, measure, change, message):
    model, x, y, _ = linear
    with pytest.raises(ValueError, match=message):
        measure(model, x, y, **{"eps": 0.1, **change})
    with pytest.raises(ValueError, match="points is 1"):
        loss_surface(model, x, y, eps=0.1, points=1)
    with pytest.raises(ValueError, match="y has shape"):
        measure(model, x, y[:2], eps=0.1)
