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
"""
This is a PyTorch implementation of training with local flatness regularization (LFR).

| Paper link: https://arxiv.org/abs/1910.12165

| Second derivatives are replaced by differences of first derivatives. With g the gradient of the loss l in the input, s
the vector of unit length along which l rises fastest, and h a small radius:

- the search for the steepest point of the ball climbs along g(x + h * s) - g(x);
- the size of the gradient at the point x' that it finds is (l(x' + h * s) - l(x' - h * s)) / (2 * h).
"""

from __future__ import absolute_import, division, print_function, unicode_literals, annotations

from contextlib import contextmanager
import logging
import time
from typing import Callable, Iterator, TYPE_CHECKING

import numpy as np
from tqdm.auto import trange

from art.config import ART_NUMPY_DTYPE
from art.defences.trainer.adversarial_trainer_lfr import AdversarialTrainerLFR
from art.estimators.classification.pytorch import PyTorchClassifier
from art.data_generators import DataGenerator
from art.utils import check_and_transform_label_format

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

WARMUP_EPOCHS = 2  # with the full penalty from the start, training can end in one class for every sample
START_NOISE = 0.001  # as a part of the width of the range of valid inputs
ROUNDING_ULPS = 16  # a difference of gradients below so many units in the last place is rounding
L1_STEP_PART = 0.01  # the part of the coordinates that share a step in the l1 norm


class AdversarialTrainerLFRPyTorch(AdversarialTrainerLFR):
    """
    Class performing training with local flatness regularization (LFR).

    | Paper link: https://arxiv.org/abs/1910.12165
    """

    def __init__(
        self,
        classifier: PyTorchClassifier,
        norm: int | float | str = np.inf,
        eps: float = 0.3,
        eps_step: float | None = None,
        max_iter: int = 10,
        lam: float | None = None,
        radius: float | None = None,
    ):
        """
        Create an :class:`.AdversarialTrainerLFRPyTorch` instance.

        :param classifier: Model to train, with an optimizer. Its `clip_values` bound the search for the steepest point.
        :param norm: The norm of the ball: np.inf, "inf", 1 or 2. Gradients are measured in its dual norm.
        :param eps: Radius of the ball around each sample, in the units of the input, before any preprocessing.
        :param eps_step: Length of a step of the search for the steepest point of the ball. `None`: 2 * eps / max_iter,
                         and at most 0.4 * eps.
        :param max_iter: Number of steps of that search. Each takes two gradients.
        :param lam: Weight of the penalty. `None`: eps / 2.
        :param radius: Distance over which differences stand in for second derivatives. `None`: eps / 4.
        """
        super().__init__(classifier, norm, eps, eps_step, max_iter, lam, radius)
        self._classifier: PyTorchClassifier
        self._norm: int | float
        self._eps_step: float
        self._lam: float
        self._radius: float
        self._nb_epochs_done = 0

        if not classifier.all_framework_preprocessing:
            raise ValueError("The classifier has preprocessing that is not PyTorch, through which no gradient passes.")

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        scheduler: "torch.optim.lr_scheduler.LRScheduler" | None = None,
        **kwargs,
    ):
        """
        Train a model with LFR on arrays. `eps` and `lam` rise linearly over the first two epochs of the trainer's life.

        :param x: Training set.
        :param y: Labels for the training set.
        :param validation_data: Samples and labels, (x_val, y_val), on which accuracy is logged after each epoch.
        :param batch_size: Size of batches.
        :param nb_epochs: Number of epochs.
        :param scheduler: Learning rate scheduler to run at the end of every epoch.
        :param kwargs: Dictionary of framework-specific arguments. There are none for PyTorch.
        """
        nb_batches = int(np.ceil(len(x) / batch_size))

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            ind = np.random.permutation(len(x))
            for batch_id in range(nb_batches):
                chosen = ind[batch_id * batch_size : (batch_id + 1) * batch_size]
                yield x[chosen], y[chosen]

        self._fit_batches(batches, nb_batches, nb_epochs, scheduler, validation_data)

    def fit_generator(
        self,
        generator: DataGenerator,
        nb_epochs: int = 20,
        scheduler: "torch.optim.lr_scheduler.LRScheduler" | None = None,
        **kwargs,
    ):
        """
        Train a model with LFR on the batches of a data generator. `eps` and `lam` rise linearly over the first two
        epochs of the trainer's life.

        :param generator: Data generator.
        :param nb_epochs: Number of epochs.
        :param scheduler: Learning rate scheduler to run at the end of every epoch.
        :param kwargs: Dictionary of framework-specific arguments. There are none for PyTorch.
        """
        if generator.size is None:
            raise ValueError("The generator has no size, so that the length of an epoch is not known.")
        nb_batches = int(np.ceil(generator.size / generator.batch_size))

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for _ in range(nb_batches):
                yield generator.get_batch()

        self._fit_batches(batches, nb_batches, nb_epochs, scheduler)

    def _fit_batches(
        self,
        batches: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]],
        nb_batches: int,
        nb_epochs: int,
        scheduler: "torch.optim.lr_scheduler.LRScheduler" | None,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """
        Train a model with LFR on batches.

        :param batches: Gives the batches of an epoch.
        :param nb_batches: How many they are.
        :param nb_epochs: Number of epochs.
        :param scheduler: Learning rate scheduler to run at the end of every epoch.
        :param validation_data: Samples and labels on which accuracy is logged after each epoch.
        """
        import torch

        if scheduler is not None and not isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler):
            raise ValueError("Invalid Pytorch scheduler is provided for adversarial training.")

        logger.info("Training with local flatness regularization")

        for i_epoch in trange(nb_epochs, desc="Adversarial Training LFR - Epochs"):
            start_time = time.time()
            train_loss = 0.0
            train_acc = 0.0
            train_n = 0.0

            for batch_id, (x_batch, y_batch) in enumerate(batches()):
                epochs_done = self._nb_epochs_done + (batch_id + 1) / nb_batches
                sums = self._batch_process(x_batch, y_batch, min(1.0, epochs_done / WARMUP_EPOCHS))
                train_loss += sums[0]
                train_acc += sums[1]
                train_n += sums[2]

            self._nb_epochs_done += 1
            if scheduler:
                scheduler.step()

            logger.info(
                "epoch: %s time(s): %.1f loss: %.4f acc(tr): %.4f",
                i_epoch,
                time.time() - start_time,
                train_loss / train_n,
                train_acc / train_n,
            )
            if validation_data is not None:
                x_val, y_val = validation_data
                y_val = check_and_transform_label_format(y_val, nb_classes=self._classifier.nb_classes)
                correct = np.argmax(self.predict(x_val), axis=1) == np.argmax(y_val, axis=1)
                logger.info("epoch: %s acc(val): %.4f", i_epoch, np.mean(correct))

    def _batch_process(
        self, x_batch: np.ndarray, y_batch: np.ndarray, warmup: float = 1.0
    ) -> tuple[float, float, float]:
        """
        Take one step of the optimizer on a batch of data.

        :param x_batch: batch of x.
        :param y_batch: batch of y.
        :param warmup: The part of `eps`, `eps_step` and `lam` that is in force.
        :return: Tuple containing batch data loss, batch data accuracy and number of samples in the batch.
        """
        import torch

        classifier = self._classifier
        if classifier._optimizer is None:
            raise ValueError("Optimizer of classifier is currently None, but is required for adversarial training.")

        y_one_hot = check_and_transform_label_format(y_batch, nb_classes=classifier.nb_classes)
        i_batch = torch.from_numpy(x_batch.astype(ART_NUMPY_DTYPE)).to(classifier._device)
        o_batch = torch.from_numpy(classifier.reduce_labels(y_one_hot)).to(classifier._device)

        classifier._model.train(mode=False)
        steepest = self._steepest_point(i_batch, o_batch, warmup)

        classifier._model.train(mode=True)
        classifier._optimizer.zero_grad()

        # Dropout has to drop the same units in all passes, or the difference below would measure the dropout.
        seed = int(torch.randint(2**31 - 1, (1,)))

        # Each term is back-propagated before the next is computed: memory for one graph is enough.
        with _seeded(seed, i_batch.device):
            loss, outputs = self._loss_and_outputs(i_batch, o_batch)
            loss.backward()
        train_loss = loss.item()

        # The search saw the model in evaluation mode, so the direction is taken anew.
        with _seeded(seed, i_batch.device), _buffers_kept(classifier._model):
            offset = self._radius * _dual_vector(self._input_gradient(steepest, o_batch), self._norm)

        for sign in (1.0, -1.0):
            with _seeded(seed, i_batch.device), _buffers_kept(classifier._model):
                loss, _ = self._loss_and_outputs(steepest + sign * offset, o_batch)
                loss = sign * warmup * self._lam / (2 * self._radius) * loss
                loss.backward()
            train_loss += loss.item()

        classifier._optimizer.step()
        classifier._model.train(mode=False)

        train_n = x_batch.shape[0]
        train_acc = np.sum(np.argmax(outputs.detach().cpu().numpy(), axis=1) == np.argmax(y_one_hot, axis=1))

        return train_loss * train_n, float(train_acc), train_n

    def _steepest_point(self, x: "torch.Tensor", y: "torch.Tensor", warmup: float) -> "torch.Tensor":
        """
        Search the ball around each sample for the point with the largest gradient of the loss.

        :param x: batch of x.
        :param y: Labels as the loss of the classifier takes them.
        :param warmup: The part of `eps` and `eps_step` that is in force.
        :return: The best point that was met, for each sample.
        """
        import torch

        eps = warmup * self._eps
        low, high = self._valid_range(x)
        dual = {np.inf: 1, 2: 2, 1: np.inf}[self._norm]

        # The start is beside x, because the gradient at x itself can be degenerate.
        width = high - low
        noise = torch.where(torch.isfinite(width), START_NOISE * width, torch.full_like(width, eps / 100))
        start = x + noise.clamp(max=eps) * torch.randn_like(x)
        point = torch.clamp(x + _project(start - x, eps, self._norm), low, high)

        for i_iter in range(self._max_iter + 1):
            gradient = self._input_gradient(point, y)
            size = torch.linalg.vector_norm(gradient.flatten(1), ord=dual, dim=1)
            if i_iter == 0:
                best_point, best_size = point, size
            else:
                better = size > best_size
                best_point = torch.where(better.view(-1, *[1] * (x.dim() - 1)), point, best_point)
                best_size = torch.where(better, size, best_size)

            if i_iter < self._max_iter:
                shifted = point + self._radius * _dual_vector(gradient, self._norm)
                rise = _difference(self._input_gradient(shifted, y), gradient)
                # Coordinates that would only be clipped again take no part in the step.
                rise[((point >= high) & (rise > 0)) | ((point <= low) & (rise < 0))] = 0.0
                point = point + warmup * self._eps_step * _step_direction(rise, self._norm)
                point = torch.clamp(x + _project(point - x, eps, self._norm), low, high)

        return best_point

    def _loss_and_outputs(self, x: "torch.Tensor", y: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        """
        Compute the loss of the classifier, differentiable in the model and in x before preprocessing.

        :param x: Samples.
        :param y: Labels as the loss of the classifier takes them.
        :return: The loss of the batch and the outputs of the model.
        """
        classifier = self._classifier
        x_preprocessed, _ = classifier._apply_preprocessing(x, None, fit=classifier._model.training, no_grad=False)
        outputs = classifier._model(x_preprocessed)[-1]
        return classifier._loss(outputs, y), outputs

    def _input_gradient(self, x: "torch.Tensor", y: "torch.Tensor") -> "torch.Tensor":
        """
        Compute the gradient of the loss in x. No gradient of a parameter is computed.

        :param x: Samples.
        :param y: Labels as the loss of the classifier takes them.
        :return: Gradient of the shape of x.
        """
        import torch

        x = x.detach().requires_grad_(True)
        loss, _ = self._loss_and_outputs(x, y)
        return torch.autograd.grad(loss, x)[0]

    def _valid_range(self, x: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        """
        Get the `clip_values` of the classifier as tensors that can be broadcast against x.

        :param x: Samples.
        :return: The smallest and the largest valid values.
        """
        import torch

        low, high = (-np.inf, np.inf) if self._classifier.clip_values is None else self._classifier.clip_values
        tensors = [torch.as_tensor(value, dtype=x.dtype, device=x.device) for value in (low, high)]
        tensors = [value.reshape(x.shape[1:]) if value.numel() == x[0].numel() else value for value in tensors]
        return tensors[0], tensors[1]


@contextmanager
def _seeded(seed: int, device: "torch.device") -> Iterator[None]:
    """
    Draw the random numbers of PyTorch from a seed, and leave its generators as they were found.

    :param seed: The seed.
    :param device: The device of the model.
    """
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _buffers_kept(model: "torch.nn.Module") -> Iterator[None]:
    """
    Put back the buffers of a model afterwards: running statistics are those of the unperturbed samples alone.

    :param model: The model.
    """
    import torch

    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)


def _difference(gradient_1: "torch.Tensor", gradient_2: "torch.Tensor") -> "torch.Tensor":
    """
    Subtract gradients, and put zeros where the result is only rounding: its sign would make full steps of noise.

    :param gradient_1: Gradients of a batch.
    :param gradient_2: Those to subtract.
    :return: The difference.
    """
    import torch

    largest = torch.maximum(gradient_1.abs(), gradient_2.abs()).flatten(1).amax(dim=1)
    rounding = ROUNDING_ULPS * torch.finfo(gradient_1.dtype).eps * largest
    difference = gradient_1 - gradient_2
    return difference.masked_fill(difference.abs() <= rounding.view(-1, *[1] * (difference.dim() - 1)), 0.0)


def _dual_vector(gradient: "torch.Tensor", norm: int | float) -> "torch.Tensor":
    """
    Find the vector of unit length along which a function with this gradient rises fastest, for each sample.

    :param gradient: Gradients of a batch.
    :param norm: The norm in which the vector has unit length.
    :return: The vectors; zeros where a gradient is zero.
    """
    if norm == 1:
        return _spread_over_largest(gradient, 1)
    return _step_direction(gradient, norm)


def _step_direction(gradient: "torch.Tensor", norm: int | float) -> "torch.Tensor":
    """
    Find the direction of a step. It is `_dual_vector`, but for the l1 norm, in which a step along a single coordinate
    would take very many steps to get anywhere.

    :param gradient: Gradients of a batch.
    :param norm: The norm in which the step has unit length.
    :return: The directions; zeros where a gradient is zero.
    """
    if norm == np.inf:
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == 1:
        return _spread_over_largest(gradient, int(np.ceil(L1_STEP_PART * flat.shape[1])))
    # Divided by the largest entry first, because the squares of tiny gradients are zero.
    flat = flat / _without_zeros(flat.abs().amax(dim=1, keepdim=True))
    return (flat / _without_zeros(flat.norm(dim=1, keepdim=True))).view_as(gradient)


def _spread_over_largest(gradient: "torch.Tensor", count: int) -> "torch.Tensor":
    """
    Share one unit of l1 length equally among the largest coordinates, with their signs.

    :param gradient: Gradients of a batch.
    :param count: How many coordinates of each sample take part.
    :return: The vectors; zeros where a gradient is zero.
    """
    import torch

    flat = gradient.flatten(1)
    largest = flat.abs().topk(count, dim=1).indices
    signs = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
    return (signs / _without_zeros(signs.abs().sum(dim=1, keepdim=True))).view_as(gradient)


def _project(offset: "torch.Tensor", eps: float, norm: int | float) -> "torch.Tensor":
    """
    Find the nearest vector of length eps at most, for each sample.

    :param offset: Vectors of a batch.
    :param eps: The largest length.
    :param norm: The norm that measures length.
    :return: The nearest vectors, of the shape of offset.
    """
    import torch

    if norm == np.inf:
        return offset.clamp(-eps, eps)
    flat = offset.flatten(1)
    length = flat.norm(p=norm, dim=1, keepdim=True)
    if norm == 2:
        return (flat * (eps / _without_zeros(length)).clamp(max=1.0)).view_as(offset)
    # All coordinates shrink by the same amount, which the sum of the largest ones determines.
    ordered = flat.abs().sort(dim=1, descending=True).values
    excess = ordered.cumsum(dim=1) - eps
    rank = torch.arange(1, flat.shape[1] + 1, dtype=flat.dtype, device=flat.device)
    last = (ordered * rank > excess).sum(dim=1, keepdim=True).clamp(min=1) - 1
    amount = excess.gather(1, last) / (last + 1)
    shrunk = flat.sign() * (flat.abs() - amount).clamp(min=0.0)
    return torch.where(length <= eps, flat, shrunk).view_as(offset)


def _without_zeros(length: "torch.Tensor") -> "torch.Tensor":
    """
    Replace zeros by ones, so that a zero vector divided by its length stays zero.

    :param length: Lengths of vectors.
    :return: The lengths, none of them zero.
    """
    return length.masked_fill(length == 0, 1.0)
