# MIT License
#
# Copyright (C) The Adversarial Robustness Toolbox (ART) Authors 2026
#
# Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
# documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
# rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
# persons to whom the Software is furnished to do so, subject to the following conditions:
#
# The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
# Software.
#
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
# WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
# AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
# TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
# SOFTWARE.
from __future__ import absolute_import, division, print_function, unicode_literals

import logging
import pytest
import numpy as np

from art.defences.trainer import AdversarialTrainerLFRPyTorch
from art.estimators.classification import PyTorchClassifier

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.skip_framework("tensorflow", "keras", "kerastf", "jax", "huggingface", "non_dl_frameworks")


@pytest.fixture
def get_classifier(framework):
    def _get_classifier(batch_norm=False, optimizer=True, clip_values=(0.0, 1.0)):
        import torch

        torch.manual_seed(1234)
        np.random.seed(1234)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, kernel_size=7, stride=3),
            torch.nn.BatchNorm2d(4) if batch_norm else torch.nn.Identity(),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(256, 10),
        )
        return PyTorchClassifier(
            model,
            loss=torch.nn.CrossEntropyLoss(),
            optimizer=torch.optim.Adam(model.parameters(), lr=0.01) if optimizer else None,
            input_shape=(1, 28, 28),
            nb_classes=10,
            clip_values=clip_values,
            device_type="cpu",
        )

    return _get_classifier


def get_accuracy(trainer, x, y):
    labels = np.argmax(y, axis=1) if y.ndim == 2 else y
    return np.mean(np.argmax(trainer.predict(x), axis=1) == labels)


def get_flatness(classifier, x, y):
    """The mean l1 norm of the gradient of the loss."""
    return np.mean(np.abs(classifier.loss_gradient(x, y)).reshape(len(x), -1).sum(axis=1)) * len(x)


@pytest.mark.parametrize("label_format", ["one_hot", "numerical"])
def test_adversarial_trainer_lfr_pytorch_fit_and_predict(get_classifier, get_default_mnist_subset, label_format):
    (x_train_mnist, y_train_mnist), (x_test_mnist, y_test_mnist) = get_default_mnist_subset
    x_train_mnist, y_train_mnist = x_train_mnist[:300], y_train_mnist[:300]
    x_train_mnist_original = x_train_mnist.copy()
    if label_format == "numerical":
        y_train_mnist = np.argmax(y_train_mnist, axis=1)
        y_test_mnist = np.argmax(y_test_mnist, axis=1)

    trainer = AdversarialTrainerLFRPyTorch(get_classifier(), eps=0.05, max_iter=2)
    accuracy = get_accuracy(trainer, x_test_mnist, y_test_mnist)
    trainer.fit(x_train_mnist, y_train_mnist, nb_epochs=5, batch_size=32, validation_data=(x_test_mnist, y_test_mnist))
    accuracy_new = get_accuracy(trainer, x_test_mnist, y_test_mnist)

    assert accuracy < 0.4
    assert accuracy_new > 0.6
    np.testing.assert_array_equal(x_train_mnist, x_train_mnist_original)


def test_adversarial_trainer_lfr_pytorch_fit_generator(get_classifier, get_default_mnist_subset, image_data_generator):
    _, (x_test_mnist, y_test_mnist) = get_default_mnist_subset

    trainer = AdversarialTrainerLFRPyTorch(get_classifier(), eps=0.05, max_iter=1)
    accuracy = get_accuracy(trainer, x_test_mnist, y_test_mnist)
    trainer.fit_generator(image_data_generator(), nb_epochs=2)
    accuracy_new = get_accuracy(trainer, x_test_mnist, y_test_mnist)

    assert accuracy < 0.4
    assert accuracy_new > 0.6


def test_adversarial_trainer_lfr_pytorch_makes_the_loss_flat(get_classifier, get_default_mnist_subset):
    (x_train_mnist, y_train_mnist), (x_test_mnist, y_test_mnist) = get_default_mnist_subset
    x_train_mnist, y_train_mnist = x_train_mnist[:300], y_train_mnist[:300]

    flatness = []
    for lam in (0.0, 0.05):
        trainer = AdversarialTrainerLFRPyTorch(get_classifier(), eps=0.1, max_iter=2, lam=lam)
        trainer.fit(x_train_mnist, y_train_mnist, nb_epochs=5, batch_size=32)
        flatness.append(get_flatness(trainer.get_classifier(), x_test_mnist, y_test_mnist))

    assert flatness[1] < 0.7 * flatness[0]


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
@pytest.mark.parametrize("clip_values", [(0.0, 1.0), None], ids=["clipped", "not_clipped"])
def test_adversarial_trainer_lfr_pytorch_steepest_point(get_classifier, get_default_mnist_subset, norm, clip_values):
    import torch

    (x_train_mnist, y_train_mnist), _ = get_default_mnist_subset
    x = torch.from_numpy(x_train_mnist[:20])
    y = torch.from_numpy(np.argmax(y_train_mnist[:20], axis=1))
    eps = {np.inf: 0.1, 2: 1.0, 1: 5.0}[norm]

    classifier = get_classifier(clip_values=clip_values)
    classifier.fit(x_train_mnist, y_train_mnist, nb_epochs=1)
    classifier.model.eval()
    dual = {np.inf: 1, 2: 2, 1: np.inf}[norm]
    sizes = []
    for max_iter in (0, 5):
        trainer = AdversarialTrainerLFRPyTorch(classifier, norm=norm, eps=eps, max_iter=max_iter)
        point = trainer._steepest_point(x, y, warmup=1.0)
        assert torch.all((point - x).flatten(1).norm(p=norm, dim=1) <= eps * 1.001)
        if clip_values is not None:
            assert point.min() >= 0
            assert point.max() <= 1
        sizes.append(trainer._input_gradient(point, y).flatten(1).norm(p=dual, dim=1))

    assert torch.mean(sizes[1]) > 1.02 * torch.mean(sizes[0])


def test_adversarial_trainer_lfr_pytorch_running_statistics(get_classifier, get_default_mnist_subset):
    import torch

    (x_train_mnist, y_train_mnist), _ = get_default_mnist_subset
    x_train_mnist, y_train_mnist = x_train_mnist[:64], y_train_mnist[:64]

    classifier = get_classifier(batch_norm=True)
    reference = get_classifier(batch_norm=True).model.train()
    AdversarialTrainerLFRPyTorch(classifier, eps=0.1).fit(x_train_mnist, y_train_mnist, nb_epochs=1, batch_size=64)
    with torch.no_grad():
        reference(torch.from_numpy(x_train_mnist))

    assert classifier.model[1].num_batches_tracked == 1
    torch.testing.assert_close(classifier.model[1].running_mean, reference[1].running_mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(classifier.model[1].running_var, reference[1].running_var, rtol=1e-4, atol=1e-6)


def test_adversarial_trainer_lfr_pytorch_warmup(get_classifier, get_default_mnist_subset, monkeypatch):
    (x_train_mnist, y_train_mnist), _ = get_default_mnist_subset
    trainer = AdversarialTrainerLFRPyTorch(get_classifier(), eps=0.1)
    parts = []

    def _batch_process(x_batch, y_batch, warmup):
        parts.append(warmup)
        return 0.0, 0.0, len(x_batch)

    monkeypatch.setattr(trainer, "_batch_process", _batch_process)
    for _ in range(3):
        trainer.fit(x_train_mnist[:64], y_train_mnist[:64], nb_epochs=1, batch_size=32)

    assert parts == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_adversarial_trainer_lfr_pytorch_scheduler(get_classifier, get_default_mnist_subset):
    import torch

    (x_train_mnist, y_train_mnist), _ = get_default_mnist_subset
    classifier = get_classifier()
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=1)

    scheduler = torch.optim.lr_scheduler.StepLR(classifier.optimizer, step_size=1, gamma=0.1)
    trainer.fit(x_train_mnist[:32], y_train_mnist[:32], nb_epochs=2, scheduler=scheduler)
    np.testing.assert_allclose(classifier.optimizer.param_groups[0]["lr"], 0.0001)

    with pytest.raises(ValueError, match="scheduler"):
        trainer.fit(x_train_mnist[:32], y_train_mnist[:32], scheduler="scheduler")


def test_adversarial_trainer_lfr_pytorch_classifiers(get_classifier, get_default_mnist_subset):
    from art.defences.preprocessor import JpegCompression

    (x_train_mnist, y_train_mnist), _ = get_default_mnist_subset

    trainer = AdversarialTrainerLFRPyTorch(get_classifier(optimizer=False))
    with pytest.raises(ValueError, match="Optimizer"):
        trainer.fit(x_train_mnist[:32], y_train_mnist[:32], nb_epochs=1)

    classifier = get_classifier()
    classifier.set_params(preprocessing_defences=[JpegCompression(clip_values=(0, 1), channels_first=True)])
    with pytest.raises(ValueError, match="preprocessing"):
        AdversarialTrainerLFRPyTorch(classifier)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"norm": 3}, "norm"),
        ({"eps": 0.0}, "eps"),
        ({"eps": np.nan}, "eps"),
        ({"eps_step": 0.0}, "eps_step"),
        ({"max_iter": -1}, "max_iter"),
        ({"max_iter": 2.5}, "max_iter"),
        ({"lam": -0.1}, "lam"),
        ({"radius": 0.0}, "radius"),
    ],
)
def test_adversarial_trainer_lfr_pytorch_check_params(get_classifier, params, message):
    with pytest.raises(ValueError, match=message):
        AdversarialTrainerLFRPyTorch(get_classifier(), **params)


def test_adversarial_trainer_lfr_pytorch_default_params(get_classifier):
    trainer = AdversarialTrainerLFRPyTorch(get_classifier(), norm="inf", eps=0.2, max_iter=5)

    np.testing.assert_allclose([trainer._eps_step, trainer._lam, trainer._radius], [0.08, 0.1, 0.05])
    assert trainer._norm == np.inf
