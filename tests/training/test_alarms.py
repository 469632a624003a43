"""What a run warns of: from records alone."""

from __future__ import annotations

import warnings

import pytest

from art_lfr.core.settings import LFRSettings
from art_lfr.penalties import AdversarialTraining, InputGradient, LocalFlatness, Penalty
from art_lfr.training.alarms import Alarms
from art_lfr.training.options import TrainingOptions

OPTIONS = TrainingOptions(warmup_epochs=1.0)


def alarms(penalty: Penalty | None = None, **settings: float) -> Alarms:
    values = {"eps": 0.1, "steps": 2, **settings}
    return Alarms(LFRSettings(**values), penalty or LocalFlatness(), OPTIONS, shown=True)  # type: ignore[arg-type]


def record(epoch: int, measured: float) -> dict[str, float]:
    return {"epoch": epoch, "flatness": 1.0, "train_subset_flatness": measured}


def told(made: Alarms, *measured: float) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch, value in enumerate(measured, 1):
            made.hiding(record(epoch, value))
    return [str(warning.message) for warning in caught]


def test_slopes_that_are_missed_in_two_epochs_are_told_of_once() -> None:
    (message,) = told(alarms(), 4.0, 5.0, 6.0)
    assert "false robustness: in epoch 2" in message
    assert "renew_every" not in message
    assert "renew_every should be 1 (now 2)" in told(alarms(renew_every=2), 4.0, 4.0)[0]


def test_a_flatness_that_rises_fast_is_no_hiding() -> None:
    """Its mean over the epoch is far below its end."""
    assert told(alarms(), 4.0, 1.2, 4.0, 1.1) == []
    assert told(alarms(AdversarialTraining()), 4.0, 4.0, 4.0) == []


@pytest.mark.parametrize("settings", [{"steps": 0}, {"step_size": 0.001}])
def test_a_search_that_stays_at_its_start(settings: dict[str, float]) -> None:
    for penalty in (LocalFlatness(), AdversarialTraining()):
        message = alarms(penalty, **settings).short_path
        assert message is not None
        assert "finds next to nothing" in message
    assert alarms(InputGradient(), lam=0.1, **settings).short_path is None
    assert alarms(lam=0.0, **settings).short_path is None


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_default_steps_go_far_enough(steps: int) -> None:
    assert alarms(steps=steps).short_path is None


def test_advice_names_lam_where_there_is_one() -> None:
    assert "lower lam (now 0.05" in alarms().advice
    assert "lam" not in alarms(AdversarialTraining()).advice


def test_a_penalty_of_exactly_0_is_told_of_once() -> None:
    made = alarms()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch, flatness in enumerate([0.0, 0.1, 0.0, 0.0], 1):
            made.useless({"epoch": epoch, "flatness": flatness})
    (warning,) = caught[-1:]
    assert "the penalty is exactly 0 throughout epoch" in str(warning.message)
    assert len(caught) == 1


def test_no_penalty_of_0_where_there_is_none() -> None:
    for made in (alarms(AdversarialTraining()), alarms(lam=0.0)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made.useless({"epoch": 9, "flatness": 0.0})
