"""The loop has the protocol of pyautoattack to the bit, and of the original where it is there."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lfr_testing import without_time
from pyautoattack import checks

from art_lfr.attacks.target import make_target
from art_lfr.autoattack import run_autoattack
from art_lfr.autoattack.backend import suite_for
from art_lfr.autoattack.suite import run_suite
from art_lfr.masking.evidence import flags_of


@pytest.mark.parametrize(
    ("norm", "version", "noise", "eps"),
    [
        ("Linf", "standard", 0.0, 0.02),
        ("L2", "standard", 0.0, 0.15),
        ("L1", "standard", 0.0, 0.6),
        ("Linf", "plus", 0.0, 0.02),
        ("Linf", "rand", 0.02, 0.06),
    ],
)
def test_results_and_lines_are_those_of_pyautoattack(
    data, monkeypatch, request, norm, version, noise, eps, net, short_suite
):
    x, y = data
    # It would end the trace function of a debugger.
    monkeypatch.setattr(checks, "check_dynamic", lambda model, x, *_, **__: model(x))
    expected_lines, lines = [], []
    handler = logging.Handler()
    handler.emit = lambda record: expected_lines.append(record.getMessage())
    logger = logging.getLogger("auto-attack")
    monkeypatch.setattr(logger, "handlers", [handler])
    # Not the attribute: a logger remembers which levels it had switched off.
    request.addfinalizer(lambda level=logger.level: logger.setLevel(level))
    logger.setLevel(logging.DEBUG)
    model = net(noise=noise)
    theirs = short_suite(model, norm, version, eps=eps)
    expected_lines.clear()
    torch.manual_seed(5)
    examples, labels = theirs.run_standard_evaluation(x, y, batch_size=8)
    torch.manual_seed(5)
    state = run_suite(
        short_suite(model, norm, version, eps=eps),
        x,
        y,
        batch_size=8,
        checks=checks,
        log=lines.append,
        warn=lines.append,
    )
    assert torch.equal(state.adversarial, examples)
    assert torch.equal(state.labels, labels)
    assert torch.equal(state.robust, labels == y)
    assert 0 < int(state.robust.sum()) < int(state.clean.sum())  # the attacks had something to do
    # Two kinds of lines are pyautoattack's own, and not the original's.
    expected_lines = [line for line in expected_lines if not line.startswith(("running ", "sett"))]
    assert [without_time(line) for line in lines if "dynamic" not in line] == [
        without_time(line) for line in expected_lines
    ]
    names = state.accuracies.keys()
    assert list(names) == ["clean", *theirs.attacks_to_run]
    assert state.accuracies["clean"] >= state.accuracies[theirs.attacks_to_run[-1]]


def test_images_whose_axes_were_permuted(data, net, short_suite):
    """(N, H, W, C) turned into (N, C, H, W) without a copy, which pyautoattack alone refuses."""
    x = torch.rand(6, 3, 8, 8)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), net())
    y = model(x).argmax(dim=1)
    permuted = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not permuted.is_contiguous()
    expected, found = (
        run_suite(short_suite(model), images, y, batch_size=4, checks=checks)
        for images in (x, permuted)
    )
    assert torch.equal(found.adversarial, expected.adversarial)
    with pytest.raises(RuntimeError, match="view"):
        short_suite(model).apgd_targeted.perturb(permuted, y)


def test_a_second_run_of_a_suite_equals_the_first(data, net, short_suite):
    """FAB's targeted run sets its number of restarts, APGD's schedule its number of steps."""
    x, y = data[0][3:9], data[1][3:9]
    suite = short_suite(net(), "L1", "plus")
    suite.apgd.use_largereps = True
    first, second = (run_suite(suite, x, y, batch_size=8, checks=checks) for _ in range(2))
    assert suite.fab.n_restarts == 2
    assert torch.equal(first.adversarial, second.adversarial)


def test_unknown_attacks_of_a_suite(data, net, short_suite):
    suite = short_suite(net())
    suite.attacks_to_run = ["apgd-ce", "apgdt"]
    with pytest.raises(ValueError, match=r"attacks_to_run is 'apgdt'.*did you mean 'apgd-t'"):
        run_suite(suite, *data, batch_size=8, checks=checks)


def test_the_original_package_attacks_where_it_is_installed(data, short, first_on_path, net):
    x, y = data
    expected = run_autoattack(net(), x, y, eps=0.02)
    original = Path(__file__).with_name("original_package")
    shutil.copytree(original, first_on_path / "autoattack")
    found = run_autoattack(net(), x, y, eps=0.02)
    assert found.backend.startswith("autoattack")
    assert found.flags == ["by the original"]
    np.testing.assert_array_equal(found.adversarial, expected.adversarial)


@pytest.mark.parametrize("kind", ["script", "folder", "broken"])
def test_what_is_not_the_original_package_is_left_alone(data, short, first_on_path, kind, net):
    x, y = data
    if kind == "script":
        (first_on_path / "autoattack.py").write_text(
            "raise SystemExit('a script of the user has run')"
        )
    else:
        (first_on_path / "autoattack").mkdir()
    if kind == "broken":
        (first_on_path / "autoattack" / "__init__.py").write_text("from torch import no_such_name")
    found = run_autoattack(net(), x[3:6], y[3:6], eps=0.5)
    assert found.backend.startswith("pyautoattack")


@pytest.mark.parametrize("p", [float("inf"), 2.0])
def test_weights_in_channels_last_order(p, short_suite):
    """All four attacks and the checks: some look at gradients with `view`."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 5)
    ).to(memory_format=torch.channels_last)
    x = torch.rand(6, 3, 8, 8)
    y = network(x).argmax(dim=1)
    target = make_target(network, x, y, eps=0.01, norm=p, batch_size=6)
    assert isinstance(flags_of(target), list)
    suite, _, _, unit_box, _ = suite_for(target, who="AutoAttack", instead="")
    unit = unit_box.to_unit(x).requires_grad_(True)
    (gradient,) = torch.autograd.grad(suite.model(unit).sum(), unit)
    assert gradient.is_contiguous()
    found = run_autoattack(network, x, y, eps=1e-5, norm=p)
    assert len(found.accuracies) == 5  # clean, and after each attack
