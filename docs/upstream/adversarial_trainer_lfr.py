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
This module implements training with local flatness regularization (LFR).

| Paper link: https://arxiv.org/abs/1910.12165

| LFR adds a penalty to the training loss: the largest norm that the gradient of the loss in the input takes within a
ball around the sample. Where that gradient is small everywhere in the ball, no perturbation in it changes the loss by
much. Frameworks differ in how they take gradients, so the steps themselves are left to the subclasses.
"""

from __future__ import absolute_import, division, print_function, unicode_literals, annotations

import abc
from typing import TYPE_CHECKING

import numpy as np

from art.defences.trainer.trainer import Trainer
from art.data_generators import DataGenerator

if TYPE_CHECKING:
    from art.utils import CLASSIFIER_LOSS_GRADIENTS_TYPE


class AdversarialTrainerLFR(Trainer, abc.ABC):
    """
    Base class of the framework-specific trainers with local flatness regularization (LFR).

    | Paper link: https://arxiv.org/abs/1910.12165
    """

    def __init__(
        self,
        classifier: "CLASSIFIER_LOSS_GRADIENTS_TYPE",
        norm: int | float | str = np.inf,
        eps: float = 0.3,
        eps_step: float | None = None,
        max_iter: int = 10,
        lam: float | None = None,
        radius: float | None = None,
    ):
        """
        Create an :class:`.AdversarialTrainerLFR` instance.

        :param classifier: Model to train.
        :param norm: The norm of the ball: np.inf, "inf", 1 or 2. Gradients are measured in its dual norm.
        :param eps: Radius of the ball around each sample, in the units of the input.
        :param eps_step: Length of a step of the search for the steepest point of the ball. `None`: 2 * eps / max_iter,
                         and at most 0.4 * eps.
        :param max_iter: Number of steps of that search.
        :param lam: Weight of the penalty. `None`: eps / 2.
        :param radius: Distance over which differences stand in for second derivatives. `None`: eps / 4.
        """
        super().__init__(classifier)
        self._norm = norm
        self._eps = eps
        self._eps_step = eps_step
        self._max_iter = max_iter
        self._lam = lam
        self._radius = radius
        self._check_params()

        self._norm = np.inf if norm == "inf" else norm
        if eps_step is None:
            self._eps_step = min(2 / max(1, max_iter), 0.4) * eps
        if lam is None:
            self._lam = eps / 2
        if radius is None:
            self._radius = eps / 4

    @abc.abstractmethod
    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        validation_data: tuple[np.ndarray, np.ndarray] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        **kwargs,
    ):
        """
        Train a model with LFR on arrays.

        :param x: Training set.
        :param y: Labels for the training set.
        :param validation_data: Samples and labels, (x_val, y_val), on which accuracy is logged after each epoch.
        :param batch_size: Size of batches.
        :param nb_epochs: Number of epochs.
        :param kwargs: Dictionary of framework-specific arguments.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def fit_generator(self, generator: DataGenerator, nb_epochs: int = 20, **kwargs):
        """
        Train a model with LFR on the batches of a data generator.

        :param generator: Data generator.
        :param nb_epochs: Number of epochs.
        :param kwargs: Dictionary of framework-specific arguments.
        """
        raise NotImplementedError

    def predict(self, x: np.ndarray, **kwargs) -> np.ndarray:
        """
        Predict with the classifier that is trained.

        :param x: Input samples.
        :param kwargs: Further parameters of the `predict` function of the classifier.
        :return: Predictions for `x`.
        """
        return self._classifier.predict(x, **kwargs)

    def _check_params(self) -> None:
        if self._norm not in [1, 2, np.inf, "inf"]:
            raise ValueError('The norm has to be either `1`, `2`, `np.inf` or "inf".')

        if not 0 < self._eps < np.inf:
            raise ValueError("The radius `eps` of the ball has to be positive and finite.")

        if self._eps_step is not None and not 0 < self._eps_step < np.inf:
            raise ValueError("The step size `eps_step` has to be `None`, or positive and finite.")

        if not isinstance(self._max_iter, (int, np.integer)) or self._max_iter < 0:
            raise ValueError("The number of steps `max_iter` has to be a non-negative integer.")

        if self._lam is not None and not 0 <= self._lam < np.inf:
            raise ValueError("The weight `lam` of the penalty has to be `None`, or non-negative and finite.")

        if self._radius is not None and not 0 < self._radius < np.inf:
            raise ValueError("The difference radius `radius` has to be `None`, or positive and finite.")
