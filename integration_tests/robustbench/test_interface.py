"""The stand-in for the original AutoAttack package: every argument, method and printed line."""

from __future__ import annotations

import inspect
import logging

import pytest
import torch
from lfr_testing import without_time

try:
    import art_lfr.robustbench  # noqa: F401
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported: {error}", allow_module_level=True)

import pyautoattack
from autoattack import AutoAttack

EPS = 0.006
DEFAULTS = {
    "model": inspect.Parameter.empty,
    "norm": "Linf",
    "eps": 0.3,
    "seed": None,
    "verbose": True,
    "attacks_to_run": [],
    "version": "standard",
    "is_tf_model": False,
    "device": "cuda",
    "log_path": None,
}


@pytest.fixture
def theirs(net, monkeypatch, request):
    """The lines of pyautoattack's own run, and its result; it prints none of them itself."""

    def run(x, y, individual=False, version="standard", norm="Linf", eps=EPS):
        monkeypatch.setattr(pyautoattack.checks, "check_dynamic", lambda *_, **__: None)
        lines, handler = [], logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        logger = logging.getLogger("auto-attack")
        monkeypatch.setattr(logger, "handlers", [handler])
        # Not the attribute: a logger remembers which levels it had switched off.
        request.addfinalizer(lambda level=logger.level: logger.setLevel(level))
        logger.setLevel(logging.DEBUG)
        made = pyautoattack.AutoAttack(net(), eps=eps, norm=norm, seed=7, version=version)
        made.apgd.n_iter = made.apgd_targeted.n_iter = 4
        made.fab.n_iter, made.square.n_queries = 1, 8
        name = "run_standard_evaluation" + ("_individual" if individual else "")
        found = getattr(made, name)(x, y, batch_size=5)
        return [line for line in lines if not line.startswith(("running", "no robust"))], found

    return run


def test_the_arguments_are_the_originals():
    found = {n: p.default for n, p in inspect.signature(AutoAttack).parameters.items()}
    found["attacks_to_run"] = list(found["attacks_to_run"])
    assert found == DEFAULTS
    assert list(found) == list(DEFAULTS)  # also by position
    methods = {
        "run_standard_evaluation": ["x_orig", "y_orig", "bs", "return_labels", "state_path"],
        "run_standard_evaluation_individual": ["x_orig", "y_orig", "bs", "return_labels"],
        "clean_accuracy": ["x_orig", "y_orig", "bs"],
        "set_version": ["version"],
    }
    for name, expected in methods.items():
        parameters = inspect.signature(getattr(AutoAttack, name)).parameters
        assert list(parameters)[1:] == expected
        assert "bs" not in parameters or parameters["bs"].default == 250


@pytest.mark.parametrize(("norm", "eps"), [("Linf", EPS), ("L2", 0.2)])
def test_a_run(suite, data, theirs, capsys, tmp_path, norm, eps):
    """Result, printed lines and log file are those of pyautoattack, in the original's form."""
    x, y = data
    lines, (examples, labels) = theirs(x, y, norm=norm, eps=eps)
    log = tmp_path / "log.txt"
    adversary = suite(norm=norm, eps=eps, log_path=log)
    found, found_labels = adversary.run_standard_evaluation(x, y, bs=5, return_labels=True)
    printed = capsys.readouterr().out.splitlines()
    assert [without_time(line) for line in printed] == [without_time(line) for line in lines]
    assert printed[0] == "setting parameters for standard version"
    # What the original only prints is not in its log.
    assert log.read_text().splitlines() == printed[1:]
    assert torch.equal(found, examples)
    assert torch.equal(found_labels, labels)
    again = adversary.run_standard_evaluation(x, y, 5)
    assert torch.equal(again, examples)
    assert len(log.read_text().splitlines()) == 2 * len(printed[1:])


def test_each_attack_alone(suite, data, theirs, capsys):
    x, y = data[0][:8], data[1][:8]
    lines, expected = theirs(x, y, individual=True)
    adversary = suite()
    found = adversary.run_standard_evaluation_individual(x, y, bs=5)
    printed = capsys.readouterr().out.splitlines()
    assert [without_time(line) for line in printed] == [without_time(line) for line in lines]
    assert sum(line.startswith("robust accuracy by ") for line in printed) == 4
    assert list(found) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    for name, examples in found.items():
        assert torch.equal(examples, expected[name][0])
    assert adversary.verbose
    assert adversary.attacks_to_run == list(found)
    labelled = adversary.run_standard_evaluation_individual(x, y, 5, True)
    assert torch.equal(labelled["apgd-t"][1], expected["apgd-t"][1])


def test_custom_versions(net, data, short, capsys):
    x, y = data
    for version in ("standard", "plus", "rand"):
        with pytest.raises(ValueError, match=r"attacks_to_run is .* allowed: version='custom'"):
            AutoAttack(net(), attacks_to_run=["apgd-ce"], version=version, device="cpu")
    attacks = ["apgd-dlr", "fab"]
    adversary = AutoAttack(net(), "Linf", EPS, 3, True, attacks, "custom", False, "cpu", None)
    assert capsys.readouterr().out == ""  # no parameters were set
    assert (adversary.apgd.n_restarts, adversary.fab.n_restarts) == (5, 5)
    adversary.apgd.n_restarts = adversary.fab.n_restarts = 1
    adversary.apgd.n_iter = adversary.fab.n_iter = 2
    adversary.run_standard_evaluation(x, y, bs=16)
    printed = capsys.readouterr().out
    assert "using custom version including apgd-dlr, fab." in printed
    assert "robust accuracy after APGD-DLR" in printed
    assert "robust accuracy after FAB:" in printed
    attacks.append("square")
    assert adversary.attacks_to_run == ["apgd-dlr", "fab"]
    adversary.attacks_to_run = []
    assert torch.equal(adversary.run_standard_evaluation(x, y), x)


def test_set_version(net, capsys):
    adversary = AutoAttack(net(), "L1", 5.0, version="plus", device="cpu")
    assert capsys.readouterr().out.splitlines() == [
        "setting parameters for plus version",
        '"plus" version is used with L1 norm: please check',
    ]
    assert len(adversary.attacks_to_run) == 6
    adversary.verbose = False
    adversary.set_version("standard")
    assert capsys.readouterr().out == ""
    assert adversary.apgd.use_largereps
    assert adversary.apgd_targeted.n_target_classes == 5
    adversary.set_version("rand")
    assert adversary.attacks_to_run == ["apgd-ce", "apgd-dlr"]
    assert adversary.apgd.eot_iter == 20
    with pytest.raises(ValueError, match=r"version is 'standart'.*did you mean 'standard'"):
        adversary.set_version("standart")


@pytest.mark.parametrize("verbose", [True, False])
def test_clean_accuracy_and_verbose(suite, data, capsys, tmp_path, verbose):
    x, y = data
    log = tmp_path / "log.txt"
    adversary = suite(verbose=verbose, log_path=log)
    assert adversary.clean_accuracy(x, y, bs=5) == 13 / 16
    adversary.run_standard_evaluation(x, y)
    printed = capsys.readouterr().out.splitlines()
    if verbose:
        assert printed[1] == "clean accuracy: 81.25%"
        assert log.read_text().splitlines() == printed[2:]
    else:
        assert printed == []
        assert not log.exists()


@pytest.mark.parametrize("logger", ["own", "custom"])
def test_warnings_come_in_any_case(suite, data, net, capsys, logger):
    """Also through a logger of the user's that has only `log`, as the original's has."""

    class OnlyLog:
        lines = ()

        def log(self, line):
            self.lines += (line,)
            print(line)

    class Probabilities(net):
        def forward(self, x):
            return super().forward(x).softmax(dim=1)

    adversary = suite(Probabilities(), verbose=False)
    if logger == "custom":
        adversary.logger = OnlyLog()
    adversary.run_standard_evaluation(*data)
    adversary.clean_accuracy(*data)
    adversary.set_version("standard")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Warning: it seems that the output is a probability distribution")
    assert all(line.startswith("Warning: ") for line in printed)
    if logger == "custom":
        assert list(adversary.logger.lines) == printed
