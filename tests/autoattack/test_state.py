"""A run that was stopped ends as one that was not; a state file cannot mislead or do harm."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from lfr_testing import Malicious, printed_by_python
from pyautoattack import checks

from art_lfr.autoattack import run_autoattack
from art_lfr.autoattack.state import StateFile, read_run
from art_lfr.autoattack.suite import run_suite
from art_lfr.storage.records import digest

FILES = [".run.state.lock", "run.state", "run.state.examples"]


def tiny(suite):
    suite.apgd.n_iter, suite.apgd_targeted.n_iter, suite.fab.n_iter = 2, 2, 1
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 2
    suite.apgd.eot_iter, suite.square.n_queries = 1, 5
    return suite


@pytest.fixture
def run(data, net, short_suite):
    """Maker of a run with many small batches; `stop` raises in its n-th attack on a batch."""

    def make(path=None, *, stop=None, noise=0.0, x=None, y=None, model=None, **settings):
        settings = {"version": "rand" if noise else "standard", "eps": 0.06, **settings}
        batch_size = settings.pop("batch_size", 4)
        attacks = settings.pop("attacks", None)
        suite = tiny(short_suite(model or net(noise=noise), **settings))
        suite.attacks_to_run = attacks or suite.attacks_to_run
        calls = []

        def seed():
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return 3

        suite.get_seed = seed
        x, y = data[0] if x is None else x, data[1] if y is None else y
        torch.manual_seed(5)
        state = run_suite(suite, x, y, batch_size=batch_size, checks=checks, state_path=path)
        return state, len(calls)

    return make


def assert_same(found, expected):
    for name in ("adversarial", "labels", "clean", "robust"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert (found.accuracies, found.flags) == (expected.accuracies, expected.flags)
    assert list(found.seconds) == list(expected.seconds)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_stopped_at_any_batch(run, tmp_path, noise):
    """Also for a model that draws random numbers, which a run must go on drawing."""
    expected, batches = run(noise=noise)
    assert batches > 3
    for stop in range(1, batches + 1):
        path = tmp_path / f"{stop}.state"
        with pytest.raises(KeyboardInterrupt):
            run(path, stop=stop, noise=noise)
        spent = read_run(path)["seconds"]
        found, more = run(path, noise=noise)
        assert all(found.seconds[name] >= seconds for name, seconds in spent.items())
        assert more == batches - stop + 1  # nothing is done twice
        assert_same(found, expected)
    again, more = run(path, noise=noise)
    assert more == 0
    assert_same(again, expected)


def test_one_suite_twice_on_one_state(data, net, short_suite, tmp_path):
    """APGD's schedule of radii changes its number of steps, which does not make another run."""
    suite = tiny(short_suite(net(), "L1"))
    keywords = {"batch_size": 18, "checks": checks, "state_path": tmp_path / "run.state"}
    first = run_suite(suite, *data, **keywords)
    assert suite.apgd.n_iter != 2
    assert_same(run_suite(suite, *data, **keywords), first)


def test_a_run_that_began_on_a_gpu(run, tmp_path):
    expected, _ = run()
    path = tmp_path / "run.state"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop=3)
    content = json.loads(path.read_text())
    content["run"]["random"]["torch_device"] = {"tensor": [0] * 16, "dtype": "uint8"}
    content["sha256"] = digest(content["run"])
    path.write_text(json.dumps(content))
    assert_same(run(path)[0], expected)


def test_a_write_that_was_torn(run, tmp_path):
    """Killed after the examples were written and before the state was: they do not count."""
    expected, _ = run()
    path = tmp_path / "run.state"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop=3)
    with path.with_name("run.state.examples").open("ab") as file:
        file.write(b"left by a kill" * 999)
    found, _ = run(path)
    assert_same(found, expected)
    fallen = int((found.clean & ~found.robust).sum())
    assert path.with_name("run.state.examples").stat().st_size == fallen * 64 * 4
    assert sorted(p.name for p in tmp_path.iterdir()) == FILES


def test_a_foreign_file_in_place_of_the_examples(run, tmp_path):
    foreign = tmp_path / "run.state.examples"
    foreign.write_text("mine")
    with pytest.raises(ValueError, match=r"run\.state\.examples' would be overwritten"):
        run(tmp_path / "run.state")
    assert foreign.read_text() == "mine"
    foreign.write_text("")  # left by a kill before the first state was written
    run(tmp_path / "run.state")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes; needs os.fork")
def test_killed_at_random_moments(tmp_path):
    script = Path(__file__).parent / "scripts" / "kill_runs.py"
    found = json.loads(printed_by_python(script, tmp_path, 3, 0))
    print(found)
    assert found["runs"] == found["identical"] == 3
    assert found["kills"] >= 3
    assert len(set(found["positions"])) > 2  # the kills hit different moments


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": torch.rand(18, 1, 8, 8)}, "x is another than in the run in state_path"),
        ({"y": torch.zeros(18, dtype=torch.long)}, "y is another than in the run in state_path"),
        ({"eps": 0.03}, r"eps is 0.03, but the run in state_path .*run.state' has 0.06"),
        ({"norm": "L2"}, r"norm is 'L2', but the run in state_path .* has 'Linf'"),
        ({"seed": 4}, r"seed is 4, but the run in state_path .* has 3"),
        ({"batch_size": 5}, r"batch_size is 5, but the run in state_path .* has 4"),
        ({"attacks": ["apgd-ce"]}, r"attacks is \['apgd-ce'\], but the run in state_path"),
        ({"version": "plus"}, r"attacks is .*, but the run in state_path"),
    ],
)
def test_the_state_of_another_run(run, tmp_path, change, named):
    path = tmp_path / "run.state"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop=3)
    before = [(tmp_path / name).read_bytes() for name in FILES]
    with pytest.raises(ValueError, match=named):
        run(path, **change)
    assert [(tmp_path / name).read_bytes() for name in FILES] == before


def test_the_state_of_another_model_or_budget(run, net, tmp_path, short_suite, data):
    path = tmp_path / "run.state"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop=3)
    model = net()
    with torch.no_grad():
        model.layers[3].bias[0] += 1e-3
    with pytest.raises(ValueError, match=r"model.weights.layers.3.bias is another"):
        run(path, model=model)
    suite = tiny(short_suite(net(), eps=0.06))
    suite.square.n_queries = 16
    with pytest.raises(ValueError, match=r"settings.square.n_queries is 16"):
        run_suite(suite, *data, batch_size=4, checks=checks, state_path=path)


def damage(kind, path, marker):
    examples, content = path.with_name("run.state.examples"), json.loads(path.read_text())
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Malicious(marker)))
    elif kind == "torch":
        torch.save(Malicious(marker), path)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "nested":
        path.write_text("[" * 100_000)
    elif kind == "foreign":
        path.write_text('{"_attacks_to_run": "apgd-ce", "_robust_flags": [true]}')
    elif kind == "version":
        path.write_text(json.dumps({**content, "format": 3}))
    elif kind == "flags":
        content["run"]["robust"] = "f" * len(content["run"]["robust"])
        path.write_text(json.dumps(content))
    elif kind == "no examples":
        examples.unlink()
    elif kind == "short examples":
        examples.write_bytes(examples.read_bytes()[:-1])
    else:
        assert kind == "changed examples"
        raw = bytearray(examples.read_bytes())
        raw[5] ^= 1
        examples.write_bytes(raw)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("pickle", "not JSON"),
        ("torch", "not JSON"),
        ("truncated", "not JSON"),
        ("empty", "not JSON"),
        ("nested", "not JSON"),
        ("foreign", "not written by art-lfr"),
        ("version", "format 3, not 2"),
        ("flags", "its checksum differs"),
        ("no examples", "run.state.examples: .*No such file"),
        ("short examples", "run.state.examples: its content is not what"),
        ("changed examples", "run.state.examples: its content is not what"),
    ],
)
def test_damaged_or_crafted_files(run, tmp_path, kind, reason):
    path, marker = tmp_path / "run.state", tmp_path / "executed"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop=6)
    damage(kind, path, marker)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"state_path is .*damaged or no state .*{reason}"):
        run(path)
    assert path.read_bytes() == before
    assert not marker.exists()


def test_what_a_state_says(run, tmp_path):
    path = tmp_path / "run.state"
    state, _ = run(path)
    saved = read_run(path)
    assert saved["identity"]["attacks"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert saved["accuracies"] == state.accuracies
    fallen = int((state.clean & ~state.robust).sum())
    assert len(saved["examples"]["order"]) == fallen > 0
    # Each example is written once, four bytes a pixel.
    assert path.with_name("run.state.examples").stat().st_size == fallen * 64 * 4


def test_the_public_function_resumes(data, net, short, tmp_path, monkeypatch):
    x, y = data
    keywords = {"eps": 255 * 0.05, "bounds": (0.0, 255.0), "batch_size": 6}
    model = net(scale=255.0)
    expected = run_autoattack(model, 255 * x, y, **keywords)
    save, states = StateFile.save, []

    def stop(file, state, *arguments) -> None:
        save(file, state, *arguments)
        states.append(state)
        if len(states) == 5:
            raise KeyboardInterrupt

    keywords["state_path"] = str(tmp_path / "run.state")
    with monkeypatch.context() as patch:
        patch.setattr(StateFile, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run_autoattack(model, 255 * x, y, **keywords)
    found = run_autoattack(model, 255 * x, y, **keywords)
    np.testing.assert_array_equal(found.adversarial, expected.adversarial)
    np.testing.assert_array_equal(found.robust, expected.robust)
    assert found.accuracies == expected.accuracies
