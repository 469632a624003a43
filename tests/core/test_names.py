"""Names as people write them, and that each has its object."""

from __future__ import annotations

import math

import pytest

from art_lfr.core import names
from art_lfr.data import augmentation
from art_lfr.evaluation import presets, run
from art_lfr.models import BUILT_IN
from art_lfr.penalties import PENALTIES, LocalFlatness


def test_each_name_has_its_object() -> None:
    assert set(names.MODELS) == set(BUILT_IN)
    assert set(names.PENALTIES) == set(PENALTIES)
    norms = {name for name, value in PENALTIES.items() if isinstance(value, LocalFlatness)}
    assert set(names.GRADIENT_NORMS) == norms
    assert set(names.METRICS) == set(run.METRICS)
    assert set(names.AUGMENTATIONS) == set(augmentation.BY_NAME)
    made = {*presets._MAKERS, *names.AUTO_ATTACK_PARTS, "AutoAttack"}
    assert set(names.ATTACKS) == made
    assert {attack for preset in names.PRESETS.values() for attack in preset} <= made


@pytest.mark.parametrize(
    ("written", "p"),
    [("Linf", math.inf), ("linf", math.inf), ("L2", 2), ("l_1", 1), (" inf", math.inf)],
)
def test_norms_of_other_libraries(written: str, p: float) -> None:
    assert names.parse_norm(written) == p


@pytest.mark.parametrize(
    ("written", "attack"),
    [
        ("pgd-40", "PGD-40"),
        ("PGD40", "PGD-40"),
        ("pgd", "PGD"),
        ("apgd_t", "APGD-T"),
        ("fgsm", "FGSM"),
        ("square", "Square"),
        ("AA", "AutoAttack"),
        ("Auto_Attack", "autoattack"),
        ("QUICK", "quick"),
    ],
)
def test_attacks(written: str, attack: str) -> None:
    assert names.find_attack(written) == attack


def test_the_nearest_name() -> None:
    with pytest.raises(
        ValueError, match=r"--attacks is 'pgd-20'; allowed: .*did you mean 'PGD-40'"
    ):
        names.find_attack("pgd-20", "--attacks")
    with pytest.raises(ValueError, match="'sgd', 'adam', 'adamw', mine; did you mean 'adam'"):
        names.find_name("--optimizer", "Adan", names.OPTIMIZERS, others="mine")


def test_settings_without_use_are_those_of_the_penalties() -> None:
    assert names.UNUSED.keys() == PENALTIES.keys()
    for name, penalty in PENALTIES.items():
        of_ascents = {"autocast", "warm_start"} & set(names.UNUSED[name])
        assert len(of_ascents) == (0 if penalty.ascends else 2), name


@pytest.mark.parametrize(
    ("penalty", "settings"),
    [
        ("trades", {"radius": 0.02}),
        ("adversarial-training", {"renew_every": 2}),
        ("adversarial-training", {"batch_norm": "eval"}),
        ("gradalign", {"max_iter": 3}),
        ("cure", {"warm_start": True}),
        ("lfr-held", {"held_epochs": 3.0}),
    ],
)
def test_a_setting_that_would_change_nothing(penalty: str, settings: dict[str, object]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} is {value!r} with penalty '{penalty}', which"):
        names.check_used(penalty, settings)
    names.check_used("lfr", settings)
    names.check_used(penalty, {name: None})


def test_a_value_that_says_no_more_than_the_default() -> None:
    said = {"estimator": "finite-difference", "renew_every": 1, "held_epochs": 0, "autocast": False}
    names.check_used("gradalign", said)
