"""The stand-in for the original AutoAttack package: what users set, and what is left as found."""

from __future__ import annotations

import pickle
import sys
import time
import warnings

import pytest
import torch

try:
    import art_lfr.robustbench  # noqa: F401
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported: {error}", allow_module_level=True)

import autoattack
import pyautoattack
from autoattack import AutoAttack
from autoattack.other_utils import Logger

EPS = 0.006


def test_attributes_that_users_set(suite, data, monkeypatch):
    """Restarts, targets and queries are those that are set before a run."""
    x, y = data[0][3:6], data[1][3:6]
    adversary = suite(version="custom", eps=1e-4, verbose=False)
    adversary.apgd.n_restarts, adversary.fab.n_restarts = 3, 2
    adversary.apgd_targeted.n_target_classes, adversary.square.n_queries = 4, 6
    adversary.apgd.n_iter = adversary.apgd_targeted.n_iter = adversary.fab.n_iter = 1
    counts = {}
    for name in ("apgd", "apgd_targeted", "fab"):
        attack, counts[name] = getattr(adversary, name), 0

        def count(*arguments, _name=name, _run=attack.attack_single_run, **keywords):
            counts[_name] += 1
            return _run(*arguments, **keywords)

        monkeypatch.setattr(attack, "attack_single_run", count)
    seen = adversary.square.margin_and_loss
    counts["queries"] = 0

    def query(*arguments):
        counts["queries"] += 1
        return seen(*arguments)

    monkeypatch.setattr(adversary.square, "margin_and_loss", query)
    adversary.attacks_to_run = ["apgd-ce", "apgd-t", "fab", "square"]
    adversary.run_standard_evaluation(x, y)
    assert counts == {"apgd": 3, "apgd_targeted": 4, "fab": 2, "queries": 7}


def test_seeds(net, data, monkeypatch):
    x, y = data
    adversary = AutoAttack(net(), eps=EPS, seed=11, device="cpu", verbose=False)
    assert adversary.get_seed() == 11
    adversary.seed = None
    assert abs(adversary.get_seed() - time.time()) < 10
    asked = []
    monkeypatch.setattr(AutoAttack, "get_seed", lambda self: asked.append(1) or 5)
    adversary.attacks_to_run = ["apgd-ce"]
    adversary.run_standard_evaluation(x, y, bs=5)
    assert len(asked) == 3  # one for each batch
    assert adversary.apgd.seed == 5
    assert torch.equal(adversary.get_logits(x), adversary.model(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "L3"}, "norm is 'L3'; allowed: 'Linf', 'L2', 'L1'"),
        ({"version": "fast"}, "version is 'fast'; allowed: 'standard', 'plus', 'rand', 'custom'"),
        ({"log_path": "no/such/log"}, "log_path is 'no/such/log'; allowed: a file in"),
        ({"is_tf_model": True}, "is_tf_model is True; allowed: False.*fra31/auto-attack"),
    ],
)
def test_bad_arguments(net, change, message):
    with pytest.raises(ValueError, match=message):
        AutoAttack(net(), **change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_the_default_device_without_a_gpu(net, data):
    adversary = AutoAttack(net())
    with pytest.raises(ValueError, match=r"device is 'cuda', but torch sees no GPU; .*'cpu'"):
        adversary.run_standard_evaluation(*data)
    with pytest.raises(ValueError, match=r"device is 'cuda'"):
        adversary.clean_accuracy(*data)


def test_gradients_and_random_state_are_left_as_found(suite, data):
    x, y = data
    adversary = suite(verbose=False)
    weight = adversary.model.layers[0].weight
    weight.grad = gradient = torch.ones_like(weight)
    torch.manual_seed(3)
    state, copy = torch.get_rng_state(), x.clone()
    adversary.run_standard_evaluation(x, y)
    assert weight.grad is gradient
    assert bool((gradient == 1).all())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, copy)
    adversary.attacks_to_run = ["fab-t"]
    adversary.fab.perturb = None
    with pytest.raises(TypeError):
        adversary.run_standard_evaluation(x, y)
    assert weight.grad is gradient
    assert adversary.apgd.logger is adversary.logger


def test_a_model_that_is_a_function(net, data, suite):
    network = net()
    with torch.no_grad():
        expected = suite(network, verbose=False).run_standard_evaluation(*data)
        found = suite(lambda x: network(x), verbose=False).run_standard_evaluation(*data)
    assert torch.equal(found, expected)


def test_the_check_for_dynamic_defences(net, data):
    x = data[0][:2]

    def dynamic(x):
        with torch.enable_grad():
            point = x.clone().requires_grad_(True)
            point.sum().backward()
        return x

    tracer = sys.gettrace()
    with pytest.warns(match="it seems to be a dynamic defense"):
        autoattack.checks.check_dynamic(dynamic, x)
    assert sys.gettrace() is tracer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autoattack.checks.check_dynamic(net(), x)  # the original would go on warning


def test_the_logger(tmp_path, capsys):
    Logger(None).log("on the screen")
    Logger(tmp_path / "log").log("one")
    Logger(tmp_path / "log").warning("two")
    assert (tmp_path / "log").read_text() == "one\nWarning: two\n"
    assert capsys.readouterr().out == "on the screen\none\nWarning: two\n"


def test_classes_can_be_pickled_and_found_by_the_originals_name(net):
    assert pickle.loads(pickle.dumps(AutoAttack)) is AutoAttack
    assert pickle.loads(b"cautoattack.autoattack\nAutoAttack\n.") is AutoAttack
    square = pickle.loads(b"cautoattack.square\nSquareAttack\n.")
    assert square is pyautoattack.square.SquareAttack
