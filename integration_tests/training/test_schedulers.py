"""When a scheduler steps and what it is shown, where the user does not say it."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from art_lfr import AdversarialTrainerLFRPyTorch

EPOCHS, BATCHES = 3, 4
STEPS = EPOCHS * BATCHES


@pytest.fixture
def fit(make_classifier, data):
    """Trains with a scheduler; how often it has stepped, and what was warned of."""

    def fit(make, *, warmup=0, nb_epochs=EPOCHS, scheduler=None, **arguments):
        classifier = make_classifier(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
        scheduler = make(classifier.optimizer)
        taken, step = [], scheduler.step
        scheduler.step = lambda *shown: (taken.append(shown), step(*shown))
        trainer = AdversarialTrainerLFRPyTorch(
            classifier, eps=0.1, max_iter=1, warmup_epochs=warmup, verbose=False
        )
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            trainer.fit(
                *(data.x[: 16 * BATCHES], data.y[: 16 * BATCHES]),
                batch_size=16,
                nb_epochs=nb_epochs,
                scheduler=scheduler,
                **arguments,
            )
        mine = [w for w in warned if str(w.message).startswith("scheduler")]
        assert all(w.filename == __file__ for w in mine)
        return taken, [str(w.message) for w in mine], trainer

    return fit


def sequential(optimizer, first, rest):
    parts = [lr_scheduler.LinearLR(optimizer, total_iters=first), rest(optimizer)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[first])


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS), STEPS),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=EPOCHS), EPOCHS),
        (lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1), STEPS),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS), STEPS),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS), EPOCHS),
        (lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step), EPOCHS),
        (lambda o: lr_scheduler.MultiStepLR(o, [1, 2]), EPOCHS),
        (
            lambda o: sequential(o, 4, lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=8)),
            STEPS,
        ),
        (lambda o: sequential(o, 4, lambda o: lr_scheduler.CosineAnnealingLR(o, 8)), STEPS),
        (lambda o: sequential(o, 1, lambda o: lr_scheduler.CosineAnnealingLR(o, 2)), EPOCHS),
        (lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.CyclicLR(o, 0.01, 0.1)]), STEPS),
    ],
)
def test_the_interval_follows_from_the_scheduler(fit, make, steps):
    taken, warned, _ = fit(make)
    assert len(taken) == steps
    assert warned == []


@pytest.mark.parametrize(
    ("make", "interval", "made", "gets"),
    [
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=50), None, 50, STEPS),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS), "epoch", STEPS, EPOCHS),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 10), None, 10, EPOCHS),
        (lambda o: lr_scheduler.LinearLR(o, total_iters=8), None, 8, EPOCHS),
        (lambda o: lr_scheduler.MultiStepLR(o, [5, 9]), None, 9, EPOCHS),
    ],
)
def test_a_length_that_is_not_reached_is_warned_of(fit, make, interval, made, gets):
    taken, (warned,), _ = fit(make, scheduler_interval=interval)
    assert len(taken) == gets
    assert f"made for {made} steps, and gets {gets}" in warned


def test_who_names_the_interval_may_go_on_later(fit):
    def make(optimizer):
        return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50)

    assert fit(make, scheduler_interval="batch")[1] == []
    assert fit(lambda o: lr_scheduler.CosineAnnealingLR(o, 10), scheduler_interval="epoch")[1] == []


def test_calls_again_and_again_step_as_the_first(make_classifier, data):
    """What is left of the epochs may be as many as there are batches."""
    classifier = make_classifier(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    scheduler = lr_scheduler.CosineAnnealingLR(classifier.optimizer, 6)
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=1, verbose=False)
    for _ in range(6):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(data.x[:32], data.y[:32], batch_size=16, nb_epochs=1, scheduler=scheduler)
    assert scheduler.last_epoch == 6


def test_a_cycle_that_is_too_short_is_refused_before_training(fit):
    with pytest.raises(ValueError, match="made for 10 steps, and would be stepped 12 times"):
        fit(lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10))


@pytest.mark.parametrize(
    ("mode", "validated", "metric", "shown"),
    [
        ("min", False, None, "loss"),
        ("min", True, None, "validation_robust_loss"),
        ("max", True, None, "validation_robust_accuracy"),
        ("max", False, "train_accuracy", "train_accuracy"),
        ("min", True, "validation_loss", "validation_loss"),
    ],
)
def test_a_plateau_is_shown_the_metric_after_the_warm_up(fit, data, mode, validated, metric, shown):
    validation = (data.x_test[:20], data.y_test[:20]) if validated else None
    taken, _, trainer = fit(
        lambda o: lr_scheduler.ReduceLROnPlateau(o, mode=mode),
        warmup=1.5,
        nb_epochs=4,
        validation_data=validation,
        scheduler_metric=metric,
    )
    # Of the second epoch the first half is of the warm-up.
    assert taken == [(record[shown],) for record in trainer.history[2:]]


@pytest.mark.parametrize(
    ("make", "metric", "message"),
    [
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="max"), None, "mode 'max'.*'loss'"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o), "train_accuracy", "mode 'min'"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o), "validation_loss", "without validation"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o), "lr", "scheduler_metric is 'lr'"),
        (lambda o: lr_scheduler.StepLR(o, 1), "loss", "only ReduceLROnPlateau is shown one"),
    ],
)
def test_metrics_that_do_not_go_with_the_scheduler(fit, make, metric, message):
    with pytest.raises(ValueError, match=message):
        fit(make, scheduler_metric=metric)


def test_the_robust_loss_is_that_of_the_attacked_samples(fit, data):
    *_, trainer = fit(
        lambda o: lr_scheduler.StepLR(o, 1, gamma=1.0),
        nb_epochs=1,
        validation_data=(data.x_test[:20], data.y_test[:20]),
    )
    record = trainer.history[0]
    assert record["validation_robust_loss"] > record["validation_loss"]
    model = trainer.classifier.model.eval()
    x, y = torch.tensor(data.x_test[:20]).requires_grad_(True), torch.tensor(data.y_test[:20])
    # In first order the loss of a linear network rises by eps times its slope.
    loss = nn.functional.cross_entropy(model(x), y)
    (slope,) = torch.autograd.grad(loss, x)
    assert record["validation_robust_loss"] < float(loss.detach() + 1.5 * 0.1 * slope.abs().sum())
