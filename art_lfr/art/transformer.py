"""Local flatness regularization as an ART transformer defence."""

from __future__ import annotations

from typing import Any

import torch
from art.defences.transformer.transformer import Transformer
from typing_extensions import Unpack

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch, AllTrainerKeywords
from art_lfr.core.arguments import Array, check_integer, keywords_of
from art_lfr.core.randomness import preserved_random_state
from art_lfr.errors import UsageError


class LocalFlatnessRegularization(Transformer):
    """Hand a classifier over to LFR: train a second one, leave the first as it is.

    Args:
        classifier: The trained classifier; it labels the data where labels are not given.
        batch_size: Samples in a batch.
        nb_epochs: Epochs of training.
        settings: Keywords of `AdversarialTrainerLFRPyTorch`: eps, lam, norm, ...

    Raises:
        TypeError: For a classifier that is not of PyTorch, or an unknown keyword.
    """

    params = ("batch_size", "nb_epochs")

    @keywords_of(AdversarialTrainerLFRPyTorch)
    def __init__(
        self,
        classifier: Any,
        *,
        batch_size: int = 128,
        nb_epochs: int = 20,
        **settings: Unpack[AllTrainerKeywords],
    ) -> None:
        ClassifierAdapter(classifier)
        super().__init__(classifier=classifier)
        self.batch_size = batch_size
        self.nb_epochs = nb_epochs
        self._settings = settings
        self._check_params()

    def __call__(self, x: Array, transformed_classifier: Any, y: Array | None = None) -> Any:
        """Train `transformed_classifier` with LFR on x and return it.

        Args:
            x: Inputs, shape (N, *input_shape).
            transformed_classifier: A second classifier, with an optimizer; trained in place.
            y: Labels, indices or one-hot; None: the first classifier's predictions.

        Raises:
            ValueError: Where both classifiers are one object or share parameters.
        """
        student = ClassifierAdapter(transformed_classifier, "transformed_classifier")
        teacher = ClassifierAdapter(self.classifier)
        self._refuse_shared(teacher, student)
        _ = student.optimizer  # refused here where there is none, under this argument's name
        inputs = student.inputs(x, dtype=torch.float32)  # before the first classifier sees it
        if y is None:
            with preserved_random_state(teacher.device):
                predictions = teacher.predict(inputs.numpy(), batch_size=self.batch_size)
            y = teacher.criterion.predicted(torch.as_tensor(predictions)).numpy()
        trainer = AdversarialTrainerLFRPyTorch(transformed_classifier, **self._settings)
        trainer.fit(x, y, batch_size=self.batch_size, nb_epochs=self.nb_epochs)
        self._is_fitted = True
        return transformed_classifier

    def fit(self, x: Array, y: Array | None = None, **kwargs: Any) -> None:
        """Nothing to fit: the work is done by the call."""

    def _check_params(self) -> None:
        check_integer("batch_size", self.batch_size, low=1)
        check_integer("nb_epochs", self.nb_epochs, low=1)

    @staticmethod
    def _refuse_shared(teacher: ClassifierAdapter, student: ClassifierAdapter) -> None:
        of_teacher = {parameter.data_ptr() for parameter in teacher.network.parameters()}
        shared = [n for n, p in student.network.named_parameters() if p.data_ptr() in of_teacher]
        if teacher.classifier is student.classifier or shared:
            what = f"shares {shared[0]!r} with classifier" if shared else "is classifier itself"
            raise UsageError(
                f"transformed_classifier {what}; allowed: a second classifier with a network of "
                "its own, because the first is left as it is"
            )
