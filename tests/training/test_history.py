"""How the epochs of a run are shown."""

from __future__ import annotations

from art_lfr.training.history import line

RECORD = {
    "epoch": 100,
    "loss": 0.123456,
    "flatness": 0.0123456,
    "train_accuracy": 0.971,
    "validation_accuracy": 0.9702,
    "validation_robust_accuracy": 0.9,
    "seconds": 12.34,
}


def test_an_epoch_in_a_line_of_80_columns() -> None:
    shown = line(RECORD, 100)
    assert shown == (
        "epoch 100/100: loss 0.123, flat 0.0123, train 97.1%, val 97.0%, PGD 90.0%, 12.3s"
    )
    assert len(shown) <= 80


def test_what_was_not_measured_is_left_out() -> None:
    known = {name: RECORD[name] for name in ("epoch", "loss", "train_accuracy", "seconds")}
    assert line(known, 100) == "epoch 100/100: loss 0.123, train 97.1%, 12.3s"
