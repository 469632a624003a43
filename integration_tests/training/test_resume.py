"""A run that was stopped ends as one that was not; a checkpoint cannot do harm."""

from __future__ import annotations

import pickle

import pytest
import torch
from lfr_testing import Malicious
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch

LFR = {"eps": 0.1, "max_iter": 2, "verbose": False}


def schedulers(optimizer):
    schedule = torch.optim.lr_scheduler
    return {
        "none": None,
        "multistep": schedule.MultiStepLR(optimizer, [1, 3]),
        "plateau": schedule.ReduceLROnPlateau(optimizer, patience=0),
        "lambda": schedule.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
        "sequential": schedule.SequentialLR(
            optimizer,
            [schedule.ConstantLR(optimizer, 0.5), schedule.ExponentialLR(optimizer, 0.9)],
            [2],
        ),
    }


def test_a_run_that_is_longer_than_asked_for_is_refused(make_classifier, data, tmp_path):
    def fit(epochs):
        trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
        trainer.fit(
            data.x[:64], data.y[:64], nb_epochs=epochs, checkpoint_dir=tmp_path, resume=True
        )
        return trainer

    fit(3)
    with pytest.raises(ValueError, match="nb_epochs is 2, and the run in checkpoint_dir has 3"):
        fit(2)
    assert len(fit(3).history) == 3


@pytest.mark.parametrize(
    ("name", "warm_start"),
    [
        ("none", False),
        ("none", True),
        ("multistep", False),
        ("plateau", False),
        ("lambda", False),
        ("sequential", False),
    ],
)
def test_a_new_trainer_resumes_with_any_scheduler(
    make_classifier, data, weights, same, tmp_path, name, warm_start
):
    """Four epochs at once equal two, and two more by a new trainer from the checkpoint."""

    def run(directory, epochs, seed):
        classifier = make_classifier(seed)
        scheduler = schedulers(classifier.optimizer)[name]
        trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR, warm_start=warm_start)
        trainer.fit(
            data.x[:200],
            data.y[:200],
            batch_size=64,
            nb_epochs=epochs,
            scheduler=scheduler,
            checkpoint_dir=directory,
            resume=True,
        )
        return classifier, trainer

    whole, _ = run(tmp_path / "whole", 4, 0)
    run(tmp_path / "parts", 2, 0)
    parts, trainer = run(tmp_path / "parts", 4, seed=7)
    assert same(weights(whole), weights(parts))
    assert [record["epoch"] for record in trainer.history] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["OneCycleLR", "CosineAnnealingLR", "MultiStepLR", "SequentialLR"])
def test_a_schedule_of_another_length_is_refused(
    make_classifier, data, weights, same, tmp_path, kind
):
    def run(epochs, classifier):
        schedule, optimizer = torch.optim.lr_scheduler, classifier.optimizer
        cosine = schedule.CosineAnnealingLR(optimizer, T_max=epochs)
        scheduler = {
            "OneCycleLR": lambda: schedule.OneCycleLR(optimizer, 0.1, total_steps=epochs + 1),
            "CosineAnnealingLR": lambda: cosine,
            "MultiStepLR": lambda: schedule.MultiStepLR(optimizer, [epochs // 2]),
            "SequentialLR": lambda: schedule.SequentialLR(
                optimizer, [schedule.LinearLR(optimizer), cosine], [1]
            ),
        }[kind]()
        AdversarialTrainerLFRPyTorch(classifier, **LFR).fit(
            data.x[:64],
            data.y[:64],
            nb_epochs=epochs,
            scheduler=scheduler,
            checkpoint_dir=tmp_path,
            resume=True,
        )

    run(2, make_classifier())
    classifier = make_classifier(1)
    before = weights(classifier)
    with pytest.raises(ValueError, match=r"scheduler\..*: one for as many epochs"):
        run(4, classifier)
    assert same(before, weights(classifier))


def test_fit_in_a_loop_equals_one_fit(make_classifier, data, weights, same, tmp_path):
    """Warm-up, random states, averages and history go on over the trainer's life."""
    found = []
    for calls, epochs in ((1, 4), (4, 1)):
        classifier = make_classifier()
        trainer = AdversarialTrainerLFRPyTorch(
            classifier, **LFR, warmup_epochs=3, ema_decay=0.9, best_metric="loss"
        )
        for _ in range(calls):
            trainer.fit(
                data.x[:200], data.y[:200], nb_epochs=epochs, checkpoint_dir=tmp_path / str(calls)
            )
        assert [round(r["eps"], 6) for r in trainer.history] == [0.033333, 0.066667, 0.1, 0.1]
        found.append(weights(classifier))
    assert same(*found)


def test_weights_put_in_between_calls_are_trained_on(make_classifier, data, weights, same):
    """The average that `fit` left may be replaced by the user; then his weights count."""
    classifier = make_classifier()
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR, ema_decay=0.9)
    trainer.fit(data.x[:200], data.y[:200], nb_epochs=2)
    with torch.no_grad():
        classifier.model[6].weight.zero_()
        classifier.model[6].bias.zero_()
    optimizer = classifier.optimizer
    optimizer.param_groups[0]["lr"] = 1e-9
    trainer.fit(data.x[:200], data.y[:200], nb_epochs=1)
    assert float(classifier.model[6].weight.abs().max()) < 1e-3


def test_best_weights_outlive_another_optimizer(make_classifier, data, weights, same):
    """One with another learning rate makes no weights that cannot be compared."""
    classifier = make_classifier()
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR, best_metric="loss")
    trainer.fit(data.x[:200], data.y[:200], batch_size=16, nb_epochs=8)
    best = weights(classifier)
    classifier._optimizer = torch.optim.SGD(classifier.model.parameters(), lr=1.0)
    trainer.fit(data.x[:200], data.y[:200], batch_size=16, nb_epochs=1)
    assert trainer.history[-1]["loss"] > min(record["loss"] for record in trainer.history[:8])
    assert same(weights(classifier), best)


def test_a_directory_that_holds_a_run(make_classifier, data, weights, same, tmp_path):
    x, y = data.x[:100], data.y[:100]
    AdversarialTrainerLFRPyTorch(make_classifier(), **LFR).fit(
        x, y, nb_epochs=1, checkpoint_dir=tmp_path
    )
    classifier = make_classifier(seed=1)
    before = weights(classifier)
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
    with pytest.raises(ValueError, match=r"which holds a run; allowed: .*resume=True"):
        trainer.fit(x, y, nb_epochs=1, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"x is float32 of shape \[90, 1, 8, 8\], but the run"):
        trainer.fit(x[:90], y[:90], nb_epochs=2, checkpoint_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="batch_size is 50, but the run"):
        trainer.fit(x, y, nb_epochs=2, batch_size=50, checkpoint_dir=tmp_path, resume=True)
    other = AdversarialTrainerLFRPyTorch(classifier, **{**LFR, "eps": 0.2})
    with pytest.raises(ValueError, match=r"eps is 0.2, but the run in checkpoint_dir has 0.1"):
        other.fit(x, y, nb_epochs=2, checkpoint_dir=tmp_path, resume=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    smaller = AdversarialTrainerLFRPyTorch(make_classifier(model=model), **LFR)
    with pytest.raises(
        ValueError, match=r"network\.\d\.class is .*, but the run in checkpoint_dir has"
    ):
        smaller.fit(x, y, nb_epochs=2, checkpoint_dir=tmp_path, resume=True)
    slower = make_classifier()
    slower.optimizer.param_groups[0]["lr"] /= 10
    trainer = AdversarialTrainerLFRPyTorch(slower, **LFR)
    with pytest.raises(
        ValueError,
        match=r"optimizer\.groups\.0\.lr is 0.\d+, but the run in checkpoint_dir has 0.\d+",
    ):
        trainer.fit(x, y, nb_epochs=2, checkpoint_dir=tmp_path, resume=True)
    assert same(weights(classifier), before)
    assert trainer.history == []


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "tar", "truncated", "empty", "script"])
def test_a_crafted_or_damaged_checkpoint_is_refused(
    make_classifier, data, weights, same, tmp_path, kind
):
    marker, path = tmp_path / "executed", tmp_path / "run" / "last.pt"
    path.parent.mkdir()
    content = {"format": 1, "run_id": Malicious(marker)}
    if kind in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    elif kind == "tar":
        import io
        import tarfile

        with tarfile.open(path, "w") as archive:
            for name in ("pickle", "storages", "tensors"):
                payload = pickle.dumps(content)
                member = tarfile.TarInfo(name)
                member.size = len(payload)
                archive.addfile(member, io.BytesIO(payload))
    elif kind == "truncated":
        torch.save({"format": 1, "weights": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        torch.jit.script(nn.Linear(2, 2)).save(str(path))
    classifier = make_classifier()
    before = weights(classifier)
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
    with pytest.raises(ValueError, match=r"last.pt is damaged or is no file of tensors"):
        trainer.fit(data.x, data.y, nb_epochs=1, checkpoint_dir=path.parent, resume=True)
    assert not marker.exists()
    assert same(weights(classifier), before)
    # The file can do harm: opened without care, it runs its command.
    if kind in ("zip", "legacy"):
        torch.load(path, weights_only=False)
        assert marker.exists()


def test_a_file_of_another_kind_or_version(make_classifier, data, tmp_path):
    torch.save(make_classifier().model.state_dict(), tmp_path / "last.pt")
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
    with pytest.raises(ValueError, match="checkpoint format None; allowed: 5"):
        trainer.fit(data.x, data.y, checkpoint_dir=tmp_path, resume=True)


def test_a_scheduler_that_cannot_be_saved(make_classifier, data, tmp_path):
    class Stepper:
        def step(self):
            pass

    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
    trainer.fit(data.x[:64], data.y[:64], nb_epochs=1, scheduler=Stepper())
    with pytest.raises(ValueError, match="Stepper without `state_dict`"):
        trainer.fit(
            data.x[:64], data.y[:64], nb_epochs=1, scheduler=Stepper(), checkpoint_dir=tmp_path
        )
