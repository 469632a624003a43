"""What goes wrong in practice: interruptions, swapped parts, sorted data, odd schedulers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.data_generators import PyTorchDataGenerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from art_lfr import AdversarialTrainerLFRPyTorch, LocalFlatnessRegularization
from art_lfr.data import RandomCrop
from art_lfr.errors import TrainingError
from art_lfr.training.batches import TensorBatches
from art_lfr.training.monitoring import monitors_for
from art_lfr.training.options import TrainingOptions

LFR = {"eps": 0.1, "max_iter": 2, "verbose": False, "warmup_epochs": 0, "max_grad_norm": None}


@pytest.fixture
def small(data):
    return data.x[:128], data.y[:128]


def test_a_callback_that_draws_does_not_change_the_run(make_classifier, small, weights, same):
    found = []
    for callback in (None, lambda record: (torch.rand(3), np.random.rand(), False)[-1]):
        classifier = make_classifier(dropout=0.5)
        trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
        trainer.fit(*small, batch_size=64, nb_epochs=3, callback=callback)
        found.append(weights(classifier))
    assert same(*found)


def test_the_same_trainer_resumes_after_an_interruption(
    make_classifier, small, weights, same, tmp_path
):
    """Ctrl-C in the middle of an epoch, then fit(resume=True) on the same object."""
    batches = []

    class Interrupting(RandomCrop):
        def with_view(self, x, generator):
            batches.append(len(x))
            if len(batches) == 7:
                raise KeyboardInterrupt
            return super().with_view(x, generator)

    whole, broken = make_classifier(), make_classifier()
    undisturbed = AdversarialTrainerLFRPyTorch(whole, **LFR, augment=RandomCrop(1))
    undisturbed.fit(*small, batch_size=32, nb_epochs=3)
    trainer = AdversarialTrainerLFRPyTorch(broken, **LFR, augment=Interrupting(1))
    arguments = {"batch_size": 32, "nb_epochs": 3, "checkpoint_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(*small, **arguments)
    trainer.fit(*small, **arguments, resume=True)
    assert same(weights(whole), weights(broken))
    assert len(trainer.history) == 3


class Steep(nn.Module):
    """Large gradients: one step at the largest finite rate overflows."""

    def forward(self, x):
        return 100 * x


def test_weights_spoilt_by_the_very_last_step_are_noticed(make_classifier, small, weights):
    model = nn.Sequential(Steep(), nn.Flatten(), nn.Linear(64, 10))
    classifier = make_classifier(model=model, lr=3e38)
    before = weights(classifier)
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR, ema_decay=0.9)
    with pytest.raises(TrainingError, match="a weight is not finite after epoch 1"):
        trainer.fit(*small, batch_size=128, nb_epochs=1)
    assert all(torch.equal(v, before[k]) for k, v in weights(classifier).items())
    # What is spoilt is dropped: with a sane learning rate the same trainer goes on.
    classifier.optimizer.param_groups[0]["lr"] = 1e-5
    trainer.fit(*small, batch_size=64, nb_epochs=2)
    assert all(v.isfinite().all() for v in weights(classifier).values() if v.is_floating_point())


def test_the_best_of_other_weights_or_data_does_not_count(make_classifier, small, weights, same):
    x, y = small
    classifier = make_classifier(batch_norm=False)
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR, best_metric="loss")
    trainer.fit(x, y, batch_size=64, nb_epochs=4)
    first = weights(classifier)
    trainer.fit(x, (y + 1) % 10, batch_size=64, nb_epochs=1)  # worse, and yet what is asked for
    assert not same(first, weights(classifier))
    classifier.model.load_state_dict(make_classifier(seed=4, batch_norm=False).model.state_dict())
    trainer.fit(x, (y + 1) % 10, batch_size=64, nb_epochs=1)
    assert not same(first, weights(classifier))


def test_a_loss_of_the_warm_up_is_never_the_best(make_classifier, small):
    trainer = AdversarialTrainerLFRPyTorch(
        make_classifier(), **{**LFR, "warmup_epochs": 4, "lam": 1.0}, best_metric="loss", patience=1
    )
    trainer.fit(*small, batch_size=64, nb_epochs=5)
    assert len(trainer.history) == 5


def test_data_sorted_by_label_are_monitored_over_all_labels(make_classifier, data):
    order = np.argsort(data.y_test)
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR, monitor_samples=40)
    seen = []
    trainer.fit(
        data.x[:128], data.y[:128], nb_epochs=1,
        validation_data=(data.x_test[order], data.y_test[order]),
        callback=lambda record: seen.append(record),
    )  # fmt: skip
    sorted_data = torch.tensor(data.x_test[order]), torch.tensor(data.y_test[order])
    attacked = monitors_for(trainer_batches(data), sorted_data, TrainingOptions())[0]
    assert len(set(attacked.y[:40].tolist())) >= 8
    assert seen[0]["validation_accuracy"] >= seen[0]["validation_robust_accuracy"]


def trainer_batches(data):
    x, y = torch.tensor(data.x[:64]), torch.tensor(data.y[:64])
    return TensorBatches(x, y, 32, torch.device("cpu"))


def test_eps_zero_with_the_exact_estimator_is_monitored(make_classifier, small):
    """Input-gradient regularization, as the contract names it, with validation."""
    trainer = AdversarialTrainerLFRPyTorch(
        make_classifier(), **{**LFR, "eps": 0.0, "lam": 0.1}, estimator="exact"
    )
    trainer.fit(*small, nb_epochs=1, validation_data=small)
    record = trainer.history[0]
    assert record["validation_robust_accuracy"] == record["validation_accuracy"]
    assert record["validation_flatness"] > 0


def test_nested_schedulers_resume(make_classifier, small, weights, same, tmp_path):
    found = []
    for parts in ((4,), (2, 4)):
        for epochs in parts:
            classifier = make_classifier(seed=epochs)
            if epochs == parts[0]:
                classifier = make_classifier()
            schedule = torch.optim.lr_scheduler
            scheduler = schedule.SequentialLR(
                classifier.optimizer,
                [
                    schedule.LinearLR(classifier.optimizer, total_iters=2),
                    schedule.MultiStepLR(classifier.optimizer, [1]),
                ],
                [1],
            )
            AdversarialTrainerLFRPyTorch(classifier, **LFR).fit(
                *small, nb_epochs=epochs, scheduler=scheduler,
                checkpoint_dir=tmp_path / str(len(parts)), resume=True,
            )  # fmt: skip
        found.append(weights(classifier))
    assert same(*found)


def test_a_run_of_another_optimizer_or_augmentation_is_not_resumed(
    make_classifier, small, tmp_path
):
    AdversarialTrainerLFRPyTorch(make_classifier(), **LFR).fit(
        *small, nb_epochs=1, checkpoint_dir=tmp_path
    )
    adam = make_classifier()
    adam._optimizer = torch.optim.Adam(adam.model.parameters())
    with pytest.raises(
        ValueError, match=r"optimizer.class is '.*Adam', but the run in checkpoint_dir has '.*SGD'"
    ):
        AdversarialTrainerLFRPyTorch(adam, **LFR).fit(
            *small, nb_epochs=2, checkpoint_dir=tmp_path, resume=True
        )
    augmented = AdversarialTrainerLFRPyTorch(
        make_classifier(), **LFR, augment=lambda x, generator: x
    )
    with pytest.raises(ValueError, match=r"augment is .*<locals>.*, but the run"):
        augmented.fit(*small, nb_epochs=2, checkpoint_dir=tmp_path, resume=True)


def test_a_bad_directory_changes_nothing(make_classifier, small, weights, same, tmp_path):
    classifier = make_classifier()
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR, ema_decay=0.9)
    trainer.fit(*small, nb_epochs=1)
    before = weights(classifier)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        trainer.fit(*small, nb_epochs=1, checkpoint_dir=tmp_path / "file" / "run")
    assert same(weights(classifier), before)


def test_augmentations_that_leave_the_box_or_the_shape(make_classifier, small):
    for augment, message in (
        (lambda x, generator: x + 3, "what augment returned has values"),
        (lambda x, generator: x[:5], r"augment returned shape \(5, 1, 8, 8\)"),
    ):
        trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR, augment=augment)
        with pytest.raises(ValueError, match=message):
            trainer.fit(*small, nb_epochs=1)


def test_schedulers_that_do_not_fit(make_classifier, small):
    classifier = make_classifier()
    trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
    schedule = torch.optim.lr_scheduler

    class Timm:
        def step(self, epoch):
            pass

    other = schedule.StepLR(make_classifier().optimizer, 1)
    plateau = schedule.ReduceLROnPlateau(classifier.optimizer)
    for scheduler, interval, error, message in (
        (plateau, "batch", ValueError, "scheduler_interval is 'batch' for ReduceLROnPlateau"),
        (Timm(), "epoch", TypeError, "a Timm whose `step` needs arguments"),
        (other, "epoch", ValueError, "StepLR of another optimizer"),
    ):
        with pytest.raises(error, match=message):
            trainer.fit(*small, scheduler=scheduler, scheduler_interval=interval)


def test_a_generator_of_single_samples_takes_as_many_steps(make_classifier, small):
    x, y = small
    dataset = TensorDataset(torch.tensor(x[:12]), torch.tensor(y[:12]))
    generator = PyTorchDataGenerator(DataLoader(dataset, batch_size=1), size=12, batch_size=1)
    sizes = []

    def augment(batch, draws):
        sizes.append(len(batch))
        return batch

    trainer = AdversarialTrainerLFRPyTorch(
        make_classifier(batch_norm=False), **LFR, augment=augment
    )
    trainer.fit_generator(generator, nb_epochs=1)
    assert sizes == [1] * 12
    with pytest.raises(ValueError, match="best_metric is 'train_subset_accuracy' without"):
        AdversarialTrainerLFRPyTorch(
            make_classifier(), **LFR, best_metric="train_subset_accuracy"
        ).fit_generator(generator, validation_data=small)
    with pytest.raises(TypeError, match="'batch_size'; it takes generator"):
        trainer.fit_generator(generator, batch_size=3)


class Counting(nn.Module):
    """A layer with an extra state that is no tensor."""

    count = 0

    def forward(self, x):
        self.count += 1
        return x

    def get_extra_state(self):
        return {"count": self.count}

    def set_extra_state(self, state):
        self.count = state["count"]


def test_modules_with_an_extra_state(make_classifier, small, tmp_path):
    model = nn.Sequential(Counting(), nn.Flatten(), nn.Linear(64, 10))
    trainer = AdversarialTrainerLFRPyTorch(
        make_classifier(model=model), **LFR, ema_decay=0.9, best_metric="loss"
    )
    trainer.fit(*small, nb_epochs=2, checkpoint_dir=tmp_path)
    assert model[0].count > 0


def test_a_teacher_with_one_output_labels_both_classes(data):
    from art.estimators.classification import PyTorchClassifier

    def make(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
        return PyTorchClassifier(
            model, nn.BCEWithLogitsLoss(), (1, 8, 8), 2, torch.optim.SGD(model.parameters(), 0.1),
            clip_values=(0, 1), device_type="cpu",
        )  # fmt: skip

    teacher, student = make(0), make(1)
    x = data.x[:200]
    with torch.no_grad():
        teacher.model[1].bias -= float(np.median(teacher.predict(x)))
    labels = (teacher.predict(x) > 0)[:, 0].astype(int)
    assert 0.1 < labels.mean() < 0.9
    torch.manual_seed(7)
    state = torch.get_rng_state()
    defence = LocalFlatnessRegularization(teacher, nb_epochs=30, **{**LFR, "eps": 0.01})
    defence(x, student)
    assert torch.equal(torch.get_rng_state(), state)
    assert ((student.predict(x) > 0)[:, 0] == labels).mean() > 0.8
    with pytest.raises(ValueError, match="x has shape"):
        defence(x.reshape(-1, 64), make(2))


def test_an_eps_in_another_unit_is_asked_about(make_classifier, small):
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **{**LFR, "eps": 8})
    with pytest.warns(UserWarning, match="eps is 8, more than the whole range"):
        trainer.fit(*small, nb_epochs=1)
