"""Tuning: what is proposed, what the budget stops, what a second call takes over."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
from art_lfr.core.settings import DEFAULTS, LFRSettings
from art_lfr.errors import TrainingError
from art_lfr.penalties import LocalFlatness
from art_lfr.tuning import Candidate, Trial, Tuning, candidates, tune
from art_lfr.tuning import trial as trial_module

LISTED = candidates(np.inf, 10)
EPS = 0.1


def right(share, count=400):
    """As many of the images right, the first ones."""
    return np.arange(count) < round(share * count)


def tuning(*accuracies, floor=None, minutes=10.0, **keywords):
    """A tuning whose trials have these (clean, robust) accuracies, the default's first."""
    trials = [
        Trial(candidate, right(clean), right(robust), seconds=60.0)
        for candidate, (clean, robust) in zip(LISTED, accuracies, strict=False)
    ]
    return Tuning(
        eps=EPS,
        norm="inf",
        max_iter=10,
        clean_floor=floor,
        minutes=minutes,
        trials=tuple(trials),
        not_tried=LISTED[len(trials) :],
        settings={"attacks": ["APGD-CE", "Square"]},
        **keywords,
    )


@pytest.mark.parametrize("p", [np.inf, 2.0, 1.0])
def test_candidates_start_with_the_defaults(p):
    listed = candidates(p, 10)
    settings = LFRSettings(eps=EPS, norm=p, steps=7)
    lengths = listed[0].lengths(EPS, 7)
    assert lengths["lam"] == pytest.approx(settings.lam)
    assert lengths["radius"] == pytest.approx(settings.radius)
    assert lengths["eps_step"] == pytest.approx(settings.step_size)
    assert len(set(listed)) == len(listed) >= 8
    assert [c.lam for c in listed[:3]] == [2 * c.radius for c in listed[:3]]
    exact = candidates(p, 10, "exact")
    assert len({(c.lam, c.step) for c in exact}) == len(exact) < len(listed)


@pytest.mark.parametrize(
    ("accuracies", "floor", "proposed", "reason"),
    [
        ([(0.97, 0.80)], None, 0, "no other setting"),
        # Better by one image, which is noise, and by a tenth, which is not.
        ([(0.97, 0.80), (0.97, 0.8025)], None, 0, "none of 1 other settings"),
        ([(0.97, 0.80), (0.97, 0.90), (0.97, 0.85)], None, 1, "+10.0 points"),
        ([(0.97, 0.80), (0.90, 0.90), (0.96, 0.85)], 0.95, 2, "+5.0 points"),
        ([(0.94, 0.90), (0.96, 0.80), (0.96, 0.85)], 0.95, 2, "the default does not reach"),
        ([(0.95, 0.80)], 0.95, 0, "no other setting"),
        ([(0.90, 0.80), (0.93, 0.70), (0.91, 0.90)], 0.95, 1, "no setting tried reaches"),
    ],
)
def test_proposal(accuracies, floor, proposed, reason):
    found = tuning(*accuracies, floor=floor)
    assert found.proposal is found.trials[proposed]
    assert reason in found.reason
    assert found.reaches_floor == ("no setting" not in reason)
    lengths = LISTED[proposed].lengths(EPS, 10)
    assert (found.lam, found.radius, found.eps_step) == tuple(lengths.values())


def test_the_reference_comes_first_and_the_default_is_one_of_the_others(search):
    own = replace(LISTED[0], lam=0.75)
    listed = candidates(np.inf, 10, reference=own)
    assert listed[:2] == (own, LISTED[0])
    # One of the list moves to the front.
    assert candidates(np.inf, 10, reference=LISTED[3])[:2] == (LISTED[3], LISTED[0])
    assert len(candidates(np.inf, 10, reference=LISTED[3])) == len(LISTED)
    found = search(minutes=2.5, reference=own)
    assert search.tried == [own, LISTED[0]]
    first, second = found.shown().cells
    assert (first[0], second[0]) == ("*", "")
    assert first[1].endswith("(reference)")
    assert second[1].endswith("(default)")
    assert "the reference: none of 1 other" in found.reason
    assert "The reference is the setting that was given" in " ".join(str(found).split())
    assert "given" not in str(search(minutes=2.5))


def test_the_interval_knows_how_many_settings_were_tried():
    # 10 of 400 images gained, 1 lost: ahead of the default alone, and by chance among ten.
    default, other = right(0.8), right(0.8225)
    other[:1] = False
    trials = [Trial(c, right(0.97), other, 60.0) for c in LISTED]
    trials[0] = replace(trials[0], robust=default)
    found = replace(tuning((0.9, 0.9)), trials=tuple(trials[:2]))
    assert found.against_reference(trials[1]).low > 0
    assert "Bonferroni" not in str(found)
    found = replace(found, trials=tuple(trials))
    assert found.against_reference(trials[1]).low <= 0
    assert found.proposal is trials[0]
    assert "have 99.4 % each" in " ".join(str(found).split())


def test_what_failed_is_not_proposed():
    found = tuning((0.97, 0.80), (0.97, 0.85))
    failed = Trial(LISTED[0], right(0), right(0), 60.0, "the loss is NaN")
    found = replace(found, trials=(failed, found.trials[1]))
    assert found.proposal is found.trials[1]
    assert "training failed" in found.reason
    assert "the loss is NaN" in str(found)


def test_weak_evidence_is_said_to_be_weak():
    found = tuning((0.1, 0.1), (0.08, 0.08))
    assert "says nothing" not in str(found)
    assert "without gradients" not in str(found)
    found = replace(found, settings={"largest_class": 0.1, "attacks": ["PGD-40"]})
    assert "says nothing" in str(found)
    assert "without gradients" in str(found)


def test_printed_and_written():
    found = tuning((1.0, 1.0), (0.97, 0.65), (0.9, 0.89), minutes=2.0)
    assert "says nothing" not in str(found)
    printed = str(found)
    assert max(map(len, printed.splitlines())) <= 80
    assert "-35.0 (" in printed
    assert "60 s more than asked for" in printed
    assert "lam 0.05, radius 0.025, eps_step 0.02" in printed
    assert "no time was left for (lam, radius, step) 1, 0.25, 2" in " ".join(printed.split())
    frame = found.to_frame()
    assert list(frame["proposed"]) == [True, False, False]
    assert list(frame["lam"]) == [c.lam * EPS for c in LISTED[:3]]
    assert frame["low"][1] < 0.65 < frame["high"][1]
    content = json.loads(found.to_json())
    assert content["proposal"]["eps_step"] == found.eps_step
    assert content["held_out"] == 400
    assert len(content["trials"]) + len(content["not_tried"]) == len(LISTED)


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def search(monkeypatch, data, make_classifier):
    """`tune` whose trials take a minute of a false clock and no training; `.tried` lists them."""
    clock = Clock()

    def attempt(self, candidate):
        clock.now += 60.0
        run.tried.append(candidate)
        return right(0.9, 20), right(0.5, 20), ""

    def run(**keywords):
        run.tried.clear()
        keywords = {"eps": EPS, "minutes": 3, "held_out": 20, "max_iter": 10, **keywords}
        return tune(make_classifier, data.x[:60], data.y[:60], **keywords)

    run.tried = []
    monkeypatch.setattr("art_lfr.tuning.run.monotonic", clock)
    monkeypatch.setattr(trial_module.Conditions, "attempt", attempt)
    return run


def test_budget_stops_further_trials(search):
    found = search(minutes=3.5)
    assert search.tried == list(LISTED[:3]) == [t.candidate for t in found.trials]
    assert found.not_tried == LISTED[3:]
    assert (found.seconds, found.overrun) == (180.0, 0.0)
    # The first one always runs, and says what it took.
    found = search(minutes=0.25)
    assert len(found.trials) == 1
    assert found.overrun == 45.0
    found = search(minutes=1000)
    assert found.not_tried == ()


def test_the_form_of_the_penalty_is_a_condition_of_all_trials(search):
    held = search(minutes=0.25, penalty="lfr-held").settings["penalty"]
    own = search(minutes=0.25, penalty=LocalFlatness(minus_weight=0.25)).settings["penalty"]
    assert (held, own) == ("lfr-held", "LocalFlatness(minus_weight=0.25)")


def test_a_killed_run_goes_on(search, tmp_path):
    def interrupt(trial):
        if trial.candidate == LISTED[1]:
            raise KeyboardInterrupt

    home = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        search(state_dir=home, minutes=4, callback=interrupt)
    assert len(list(home.glob("trial-*.json"))) == 2
    # The time that the finished ones took counts.
    found = search(state_dir=home, minutes=4)
    assert search.tried == list(LISTED[2:4])
    assert len(found.trials) == 4
    assert [int(t.robust.sum()) for t in found.trials] == [10] * 4
    # Another floor asks the same trials; a longer budget adds some, a shorter one loses none.
    assert not search(state_dir=home, minutes=4, clean_floor=0.95).reaches_floor
    assert search.tried == []
    assert len(search(state_dir=home, minutes=1).trials) == 4
    search(state_dir=home, minutes=5)
    assert search.tried == [LISTED[4]]
    # Whatever shapes a trial makes another tuning.
    for named, change in (
        (
            "seed is 1, but the tuning in '.*state' has 0; allowed: a new state_dir, or what",
            {"seed": 1},
        ),
        ("eps is 0.2, but", {"eps": 0.2}),
        ("epochs is 3, but", {"epochs": 3}),
        ("batch_size is 9, but", {"batch_size": 9}),
        (r"x is float32 of shape \[41, .*; x of held_out is", {"held_out": 19}),
        ("trainer.augment is 'numpy", {"augment": np.flip}),
        ("trainer.penalty is 'lfr-held'", {"penalty": "lfr-held"}),
        (r"attacks is .*FastGradientMethod'", {"attacks": ["FGSM"]}),
        ("max_iter is 3, but", {"max_iter": 3}),
        (r"scheduler is '.*StepLR'", {"make_scheduler": lambda o, n: StepLR(o, n)}),
        ("p is 2.0, but", {"norm": 2}),
    ):
        with pytest.raises(ValueError, match=named):
            search(state_dir=home, minutes=0.1, **change)
        assert search.tried == [], change
    search(state_dir=tmp_path / "step", make_scheduler=lambda o, n: StepLR(o, n), minutes=0.1)
    with pytest.raises(ValueError, match=r"scheduler.gamma is 0.5, but .* has 0.1"):
        search(state_dir=tmp_path / "step", make_scheduler=lambda o, n: StepLR(o, n, gamma=0.5))
    path = next(iter(sorted(home.glob("trial-*.json"))))
    for broken in home.glob("trial-*.json"):
        broken.write_text('{"clean": "01"')
    with pytest.raises(ValueError, match="damaged"):
        search(state_dir=home)
    with pytest.raises(ValueError, match=r"state_dir is .*; allowed: a directory that is there"):
        search(state_dir=path)


def test_real_trials(data, make_classifier, monkeypatch, tmp_path):
    """Two short trainings: what is trained on, and that all is left as found."""
    trained = []
    fit = AdversarialTrainerLFRPyTorch.fit

    def spy(self, x, y, **keywords):
        trained.append((x.copy(), y.copy(), self._loop.settings))
        fit(self, x, y, **keywords)

    monkeypatch.setattr(AdversarialTrainerLFRPyTorch, "fit", spy)
    monkeypatch.setattr("art_lfr.tuning.run.candidates", lambda *_: LISTED[:2])
    x, y = data.x[:150], data.y[:150]
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())

    def make():  # the weights come from the global generator
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        return make_classifier(model=model)

    def run(**keywords):
        return tune(
            make,
            x,
            y,
            eps=0.03,
            held_out=50,
            epochs=6,
            batch_size=10,
            max_iter=2,
            warmup_epochs=1,
            make_scheduler=lambda o, n: torch.optim.lr_scheduler.OneCycleLR(o, 0.2, n + 1),
            **keywords,
        )

    found = run(state_dir=tmp_path)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert len(trained) == 2
    for (x_fit, y_fit, settings), candidate in zip(trained, LISTED, strict=False):
        assert np.array_equal(x_fit, x[:100])
        assert np.array_equal(y_fit, y[:100])
        lengths = candidate.lengths(0.03, 2)
        assert settings.lam == lengths["lam"]
        assert settings.radius == lengths["radius"]
        assert settings.step_size == lengths["eps_step"]
    assert found.reference.clean_accuracy > 0.5
    assert 0 < found.reference.robust_accuracy <= found.reference.clean_accuracy
    assert not (found.reference.robust & ~found.reference.clean).any()
    # From the directory, and again: the same.
    for again in (run(state_dir=tmp_path), run(attacks=["APGD-CE", "Square"])):
        for one, other in zip(found.trials, again.trials, strict=True):
            assert np.array_equal(one.clean, other.clean)
            assert np.array_equal(one.robust, other.robust)
        assert again.lam == found.lam
    assert len(trained) == 4


def test_own_validation_images_and_one_hot(search, data, monkeypatch):
    seen = []
    monkeypatch.setattr(
        trial_module.Conditions, "attempt", lambda self, _: seen.append(self.data) or fake
    )
    fake = right(0.9, 20), right(0.5, 20), ""
    search(held_out=(data.x[100:120], data.one_hot[100:120]), minutes=0.1)
    assert np.array_equal(seen[0].x_reserved, data.x[100:120])
    assert len(seen[0].x) == 60


def test_all_failed(monkeypatch, data, make_classifier):
    def fail(self, x, y, **keywords):
        raise TrainingError("the loss is NaN")

    monkeypatch.setattr(AdversarialTrainerLFRPyTorch, "fit", fail)
    with pytest.raises(TrainingError, match="every one of 10 trainings failed; the first: the"):
        tune(make_classifier, data.x[:60], data.y[:60], eps=EPS)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"eps": 0}, "eps is 0"),
        ({"norm": 3}, "norm is 3"),
        ({"minutes": 0}, "minutes is 0"),
        ({"clean_floor": 97}, r"clean_floor is 97; allowed: a share in \(0, 1\]"),
        ({"held_out": 0}, "held_out is 0"),
        ({"held_out": 60}, "held_out is 60 of 60 images; allowed: at most 59"),
        ({"held_out": (1, 2, 3)}, "held_out has 3 parts"),
        ({"epochs": 0}, "epochs is 0"),
        ({"max_iter": 0}, "max_iter is 0"),
        ({"attacks": "Square"}, "attacks is 'Square'"),
        ({"attacks": ["Squair"]}, "did you mean 'Square'"),
        ({"attacks": ["JSMA"]}, "none of which attacks all images within eps"),
        ({"best_metric": "validation_accuracy"}, "unexpected keyword argument 'best_metric'"),
        ({"lam": 0.1}, "tune.. got an unexpected keyword argument 'lam'"),
        ({"penalty": "cure"}, "penalty is 'cure'; allowed: lfr, lfr-held, input-gradient"),
        ({"reference": 0.5}, "reference is 0.5; allowed: a Candidate"),
        ({"minute": 1}, "did you mean 'minutes'"),
        ({"estimator": "exat"}, "did you mean 'exact'"),
    ],
)
def test_bad_arguments_before_any_training(search, keywords, words):
    with pytest.raises((ValueError, TypeError), match=words):
        search(**keywords)
    assert search.tried == []


def test_bad_data_and_classifiers(data, make_classifier):
    order = np.argsort(data.y)
    with pytest.raises(ValueError, match="is y sorted"):
        tune(make_classifier, data.x[order], data.y[order], eps=EPS)
    one = make_classifier()
    with pytest.raises(ValueError, match="the same network again"):
        tune(lambda: one, data.x[:60], data.y[:60], eps=EPS)
    seeds = iter(range(9))
    with pytest.raises(ValueError, match="other weights"):
        tune(lambda: make_classifier(next(seeds)), data.x[:60], data.y[:60], eps=EPS)
    with pytest.raises(TypeError, match="what make_classifier returns is a Linear"):
        tune(lambda: nn.Linear(2, 2), data.x[:60], data.y[:60], eps=EPS)
    with pytest.raises(ValueError, match="allowed: inside the bounds"):
        tune(make_classifier, data.x[:60] * 255, data.y[:60], eps=EPS)


def test_candidate_is_in_multiples():
    lengths = Candidate(lam=2.0, radius=0.5, step=4.0).lengths(0.3, 10)
    assert lengths == pytest.approx({"lam": 0.6, "radius": 0.15, "eps_step": 0.12})
    assert set(DEFAULTS) == {np.inf, 2.0, 1.0}
