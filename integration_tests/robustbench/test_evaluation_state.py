"""`autoattack.state`: what a file of a run tells those who did not start it."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

try:
    import art_lfr.robustbench  # noqa: F401
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported: {error}", allow_module_level=True)

from autoattack.state import EvaluationState


def test_a_run_and_its_state(suite, data, tmp_path, capsys):
    x, y = data
    path = tmp_path / "run.state"
    expected, labels = suite(norm="L2", eps=0.2).run_standard_evaluation(x, y, return_labels=True)
    capsys.readouterr()
    adversary = suite(norm="L2", eps=0.2)
    found = adversary.run_standard_evaluation(x, y, state_path=path)
    assert torch.equal(found, expected)
    assert f"Created state in {path}" in capsys.readouterr().out
    state = EvaluationState.from_disk(path)
    assert state.attacks_to_run == state.run_attacks == set(adversary.attacks_to_run)
    assert torch.equal(torch.as_tensor(state.robust_flags), labels == y)
    assert state.clean_accuracy == 13 / 16
    share = int((labels == y).sum()) / 16
    assert 0 < share < 13 / 16
    # What RobustBench asks for, and torch does not have for booleans.
    assert state.robust_flags.mean().item() == state.robust_accuracy == share
    # It goes on from the end: all examples are there, which the original would not have.
    again = suite(norm="L2", eps=0.2).run_standard_evaluation(x, y, state_path=str(path))
    assert torch.equal(again, expected)
    printed = capsys.readouterr().out.splitlines()[1:]
    assert printed[:5] == [
        f"Restored state from {path}",
        "using standard version including .",
        "apgd-ce, apgd-t, fab-t, square was/were already run.",
        "initial clean accuracy: 81.25%",
        f"robust accuracy at the time of restoring the state: {share:.2%}",
    ]
    with pytest.raises(ValueError, match=r"path is .*run.state', which holds a run that may"):
        state.to_disk(force=True)
    other = suite(norm="L2", eps=0.3)
    with pytest.raises(ValueError, match=r"eps is 0\.3, but the run in state_path .* has 0\.2"):
        other.run_standard_evaluation(x, y, state_path=path)


def test_a_run_that_was_stopped(suite, data, tmp_path, monkeypatch, capsys):
    x, y = data
    expected = suite(norm="L2", eps=0.2).run_standard_evaluation(x, y, bs=5)
    path, adversary = tmp_path / "run.state", suite(norm="L2", eps=0.2)
    monkeypatch.setattr(adversary.fab, "perturb", None)
    with pytest.raises(TypeError):
        adversary.run_standard_evaluation(x, y, bs=5, state_path=path)
    state = EvaluationState.from_disk(path)
    assert state.run_attacks == {"apgd-ce", "apgd-t"}
    with pytest.warns(match="before all attacks have been run"):
        assert state.robust_accuracy > 0
    capsys.readouterr()
    found = suite(norm="L2", eps=0.2).run_standard_evaluation(x, y, bs=5, state_path=path)
    assert torch.equal(found, expected)
    assert "using standard version including fab-t, square." in capsys.readouterr().out


def test_a_run_that_left_no_sample(suite, data, tmp_path):
    """It ends before all attacks have been run, and that is no reason to warn."""
    path = tmp_path / "run.state"
    suite(eps=0.5, verbose=False).run_standard_evaluation(*data, state_path=path)
    state = EvaluationState.from_disk(path)
    assert state.run_attacks == {"apgd-ce"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert state.robust_accuracy == 0


def test_one_that_a_user_makes(tmp_path):
    path = tmp_path / "mine.json"
    state = EvaluationState({"apgd-ce", "square"}, path=path)
    assert state.robust_flags is None
    assert math.isnan(state.clean_accuracy)
    with pytest.raises(ValueError, match="robust_flags is None"):
        state.robust_accuracy  # noqa: B018
    state.to_disk()
    assert EvaluationState.from_disk(path).robust_flags is None
    state.robust_flags = torch.tensor([True, False, True, True])
    state.clean_accuracy = 1.0
    state.add_run_attack("apgd-ce")
    found = EvaluationState.from_disk(path)
    assert found.robust_flags.tolist() == [True, False, True, True]
    assert found.robust_flags.mean().item() == 0.75
    assert (found.run_attacks, found.clean_accuracy) == ({"apgd-ce"}, 1.0)
    with pytest.raises(AttributeError):
        found.attacks_to_run = {"fab"}
    EvaluationState({"fab"}).to_disk()  # without a path there is nothing to write


@pytest.mark.parametrize("content", ["", "{}", '{"kind": "art-lfr AutoAttack summary"}', "[1]"])
def test_files_that_are_none(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other.json', which is damaged or no state"):
        EvaluationState.from_disk(path)
    with pytest.raises(ValueError, match="allowed: another path"):
        EvaluationState({"fab"}, path=path).to_disk()
    with pytest.raises(FileNotFoundError):
        EvaluationState.from_disk(tmp_path / "none.json")
