"""Setups on which training would fail, or train another function, are refused before it begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lfr_testing import classifier_around
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate, local_flatness, masking_report
from art_lfr.check import check_model
from art_lfr.penalties import Part, Penalty


def fit(classifier, data, *, samples=32, nb_epochs=1, batch_size=16, **settings):
    trainer = AdversarialTrainerLFRPyTorch(
        classifier, **{"eps": 0.1, "max_iter": 1, "verbose": False, **settings}
    )
    trainer.fit(data.x[:samples], data.y[:samples], nb_epochs=nb_epochs, batch_size=batch_size)
    return trainer


def layers():
    return [nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)]


class Mirrored(nn.Sequential):
    def forward(self, x):
        return super().forward(1 - x)


class InTraining(nn.Sequential):
    def forward(self, x):
        return super().forward(1 - x if self.training else x)


class Flattening(nn.Sequential):
    """Its children do not fit together by themselves."""

    def forward(self, x):
        return super().forward(x.flatten(1))


class Same(nn.Sequential):
    def forward(self, x):
        return super().forward(x)


class Around(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


def hooked(hook):
    network = nn.Sequential(*layers())
    network.register_forward_hook(hook)
    return network


def patched():
    network = nn.Sequential(*layers())
    network.forward = lambda x: nn.Sequential.forward(network, 1 - x)
    return network


ANOTHER = {
    "subclass": lambda: Mirrored(*layers()),
    "in training": lambda: InTraining(*layers()),
    "does not fit": lambda: Flattening(*layers()[1:]),
    "hook": lambda: hooked(lambda module, x, output: 2 * output),
    "patched": patched,
}


@pytest.mark.parametrize("make", ANOTHER.values(), ids=ANOTHER)
def test_a_root_sequential_that_art_runs_otherwise(make_classifier, data, make):
    classifier = make_classifier(model=make())
    x, y = data.x[:30], data.y[:30]
    for use in (
        lambda: fit(classifier, data),
        lambda: evaluate(classifier, x, y, eps=0.1, attacks="FGSM"),
        lambda: local_flatness(classifier, x, y, eps=0.1),
        lambda: masking_report(classifier, x, y, eps=0.1),
    ):
        with pytest.raises(ValueError, match="ART calls the children one by one"):
            use()
    (error,) = (found for found in check_model(classifier, x) if found.severity == "error")
    assert "one by one" in error.problem
    assert "another nn.Module" in error.fix


@pytest.mark.parametrize(
    "make",
    [
        lambda: Same(*layers()),
        lambda: Around(Mirrored(*layers())),
        lambda: hooked(lambda module, x, output: None),
    ],
)
def test_one_that_art_runs_as_it_is_meant(make_classifier, data, make):
    classifier = make_classifier(model=make())
    assert len(fit(classifier, data).history) == 1
    assert not [f for f in check_model(classifier, data.x) if f.severity == "error"]


class Sharpness(torch.optim.SGD):
    def step(self, closure=None):
        assert closure is not None, "Sharpness Aware Minimization requires closure"


def test_optimizers_that_do_not_step_by_themselves(make_classifier, data, weights, same):
    classifier = make_classifier()
    before, parameters = weights(classifier), list(classifier.model.parameters())
    for optimizer, error, message in (
        (torch.optim.LBFGS(parameters), ValueError, "LBFGS, whose `step` needs a closure"),
        (Sharpness(parameters, lr=0.1), ValueError, "Sharpness, whose `step` needs a closure"),
        ([torch.optim.SGD(parameters, lr=0.1)], TypeError, "a list as optimizer; allowed: one"),
    ):
        classifier._optimizer = optimizer
        with pytest.raises(error, match=message):
            fit(classifier, data)
        parameters_now = dict(classifier.model.named_parameters())
        assert all(torch.equal(before[name], p) for name, p in parameters_now.items())


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 1}, {"max_physical_batch_size": 1}, {"samples": 1}]
)
def test_batch_norm_on_one_sample(make_classifier, data, weights, same, arguments):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    classifier = make_classifier(model=network)
    before = weights(classifier)
    with pytest.raises(ValueError, match="is 1 with a BatchNorm, which has no statistics"):
        fit(classifier, data, **arguments)
    assert same(before, weights(classifier))
    network[2] = nn.GroupNorm(2, 8)
    assert len(fit(make_classifier(model=network), data, **arguments).history) == 1


def test_batch_norm_on_one_sample_from_a_loader(make_classifier, data, weights, same):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    classifier = make_classifier(model=network)
    before = weights(classifier)
    pairs = torch.utils.data.TensorDataset(torch.tensor(data.x[:4]), torch.tensor(data.y[:4]))
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=1, verbose=False)
    with pytest.raises(ValueError, match="is 1 with a BatchNorm"):
        trainer.fit_loader(torch.utils.data.DataLoader(pairs, batch_size=1), nb_epochs=1)
    assert same(before, weights(classifier))


def test_a_radius_that_rounding_swallows(make_classifier, data, tmp_path):
    classifier = make_classifier()
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, radius=1e-8, verbose=False)
    with pytest.raises(ValueError, match="radius is 1e-08, less than the rounding"):
        trainer.fit(data.x, data.y, checkpoint_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(UserWarning, match="radius is 1e-07, a few roundings") as warned:
        fit(classifier, data, radius=1e-7)
    assert [w.filename for w in warned if "radius" in str(w.message)] == [__file__]


class Given(Penalty):
    """A penalty whose parts are what it is given."""

    def __init__(self, parts):
        self.give = parts

    def parts(self, view, x, y, searched):
        return self.give(view.losses(x, y))


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (lambda v: iter([Part(1.0, v.detach())]), ValueError, "without a gradient in the weights"),
        (
            lambda v: iter([Part(1.0, v.detach()), Part(2.0, torch.ones_like(v))]),
            ValueError,
            "without a gradient in the weights",
        ),
        (lambda v: iter([v]), TypeError, "yields a Tensor as a part; allowed: Part"),
        (lambda v: v, TypeError, "yields a Tensor as a part"),
        (lambda v: Part(1.0, v), TypeError, "yields a float as a part"),
        (lambda v: iter([(v, 1.0)]), TypeError, "yields a tuple as a part"),
        (lambda v: iter([Part(1.0, v.mean())]), ValueError, r"shape \(\) for 16 samples"),
    ],
)
def test_penalties_that_would_train_nothing(make_classifier, data, parts, error, message):
    classifier = make_classifier()
    before = [p.clone() for p in classifier.model.parameters()]
    with pytest.raises(error, match=f"penalty Given .*{message}|penalty Given {message}"):
        fit(classifier, data, penalty=Given(parts), lam=0.1)
    pairs = zip(before, classifier.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_part_may_be_held(make_classifier, data):
    def parts(values):
        return iter([Part(1.0, values), Part(-1.0, values.detach())])

    history = fit(make_classifier(), data, penalty=Given(parts), lam=0.1).history
    assert np.isclose(history[0]["flatness"], 0.0)


class Asserting(torch.optim.SGD):
    """As published SAM optimizers, whose signature does not say that they need a closure."""

    def step(self, closure=None):
        self.param_groups[0]["params"][0].data.add_(1)  # the first of its two steps
        self.state[self.param_groups[0]["params"][0]]["old_p"] = 0
        assert closure is not None


class Calling(torch.optim.SGD):
    """As `Asserting`, but it calls what it is given."""

    def step(self, closure=None):
        closure = torch.enable_grad()(closure)
        closure()


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Asserting, r"Asserting, whose `step` fails with AssertionError"),
        (Calling, "Calling, whose `step` needs a closure"),
        (torch.optim.SparseAdam, r"SparseAdam, whose `step` fails with RuntimeError \(.*dense"),
    ],
)
def test_an_optimizer_whose_step_raises_leaves_the_weights_as_they_were(kind, problem):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    optimizer = kind(network.parameters(), lr=0.01)
    classifier = classifier_around(network, (4,), 3, optimizer=optimizer)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, y = np.random.default_rng(0).random((8, 4), dtype=np.float32), np.arange(8) % 3
    with pytest.raises(ValueError, match=problem + r".*allowed: one whose step\(\) takes no arg"):
        AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=1).fit(x, y, nb_epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in network.parameters())


def test_weights_that_are_nan_from_the_start_are_named():
    network = nn.Sequential(nn.Linear(4, 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    classifier = classifier_around(network, (4,), 3, optimizer=optimizer)
    with torch.no_grad():
        network[0].bias[1] = float("nan")
    x, y = np.random.default_rng(0).random((8, 4), dtype=np.float32), np.arange(8) % 3
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=1)
    with pytest.raises(RuntimeError, match=r"batch 0: the network's '0[.]bias' held NaN"):
        trainer.fit(x, y, nb_epochs=1)
