"""An ART PyTorch classifier seen as a module, a loss, a box and tensors.

All lengths stay in the user's raw units: `preprocessing` (mean, std) and preprocessing defences
run inside the module, so that gradients are taken in front of them.
"""

from __future__ import annotations

import inspect
import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
from art.estimators.classification import PyTorchClassifier
from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch
from art.preprocessing.standardisation_mean_std.utils import broadcastable_mean_std
from torch import Tensor, nn

from art_lfr.art.module import BoundsChoice, ModelAdapter, is_auto
from art_lfr.core.criterion import Criterion, logits_of
from art_lfr.core.geometry import Bounds, Box
from art_lfr.core.modes import mode, parameters_of, protected_buffers
from art_lfr.core.randomness import RandomState, preserved_random_state
from art_lfr.core.samples import as_tensor
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.models import NetworkInfo


class ClassifierModule(nn.Module):
    """Raw inputs to logits: preprocessing, then `classifier._model(x)[-1]`.

    These are the logits that ART's `predict` takes; `classifier.model(x)` would skip a Hugging
    Face processor. Preprocessing for `fit` applies in train mode, that for `predict` in eval mode.
    """

    def __init__(self, classifier: PyTorchClassifier) -> None:
        super().__init__()
        self.network = classifier._model
        # In a tuple, so that the classifier is not looked at as a submodule.
        self._classifier = (classifier,)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ...) to logits."""
        classifier = self._classifier[0]
        x, _ = classifier._apply_preprocessing(x, None, fit=self.training, no_grad=False)
        logits: Tensor = classifier._model(x)[-1]
        return logits


class ClassifierAdapter(ModelAdapter):
    """What the flatness, the loss and the training loop need of an ART classifier.

    Raises TypeError for anything that is not a PyTorch classifier of ART, and ValueError for
    settings through which gradients cannot pass.
    """

    def __init__(self, classifier: object, name: str = "classifier", also: str = "") -> None:
        if not isinstance(classifier, PyTorchClassifier):
            raise WrongTypeError(
                f"{name} is a {type(classifier).__name__}; allowed: {also}"
                "art.estimators.classification.PyTorchClassifier or a subclass"
            )
        for defence in classifier.preprocessing_operations:
            if not isinstance(defence, PreprocessorPyTorch):
                raise UsageError(
                    f"{name} has the preprocessing defence {type(defence).__name__}, through which "
                    "no gradient passes; allowed: defences that are PreprocessorPyTorch"
                )
        if classifier.use_amp and classifier._opt_level != "O1":
            raise UsageError(
                f"{name} has use_amp True with opt_level {classifier._opt_level!r}, whose weights "
                "are narrow; allowed: 'O1', or precision='bf16' of the trainer"
            )
        if classifier.loss is None:
            raise UsageError(f"{name} has no loss; allowed: a torch.nn loss with `reduction`")
        super().__init__(classifier.model, bounds=_clip_values(classifier), name=name)
        self.classifier = classifier
        self.module = ClassifierModule(classifier)
        self.criterion = Criterion(classifier.loss)
        if isinstance(self.network, nn.Sequential):
            self._check_runs_as_called()

    def _check_runs_as_called(self) -> None:
        """Raise ValueError where ART runs another function than the model that was given to it.

        Of an nn.Sequential it calls the children one by one: a `forward` or `__call__` of the
        model's own and hooks on it are left out. Both ways are compared where there may be such.
        """
        network = self.network
        own = type(network) is not nn.Sequential or "forward" in vars(network)
        if not (own or network._forward_hooks or network._forward_pre_hooks):
            return
        x = self.random_inputs(2).to(self.device, self.dtype)
        problem = ""
        for training in (False, True):
            with (
                torch.no_grad(),
                preserved_random_state(self.device),
                mode(network, training=training),
                protected_buffers(network),
            ):
                state = RandomState.capture(self.device)
                try:
                    expected = logits_of(network(x))
                except Exception:  # random inputs are none of this model's
                    return
                state.restore()
                try:
                    found = logits_of(self.classifier._model(x)[-1])
                    if found.shape != expected.shape or not torch.allclose(
                        found, expected, rtol=1e-3, atol=1e-5, equal_nan=True
                    ):
                        problem = "with other logits"
                except Exception as error:  # whatever the children raise
                    problem = f"and fails ({str(error).splitlines()[0][:80]})"
        if problem:
            raise UsageError(
                f"{self.name} has a {type(network).__name__} as model, an nn.Sequential of which "
                f"ART calls the children one by one, {problem}: its own forward, __call__ and "
                "hooks are not run; allowed: the same inside another nn.Module, whose forward "
                "calls it"
            )

    def random_inputs(self, count: int) -> Tensor:
        """Uniform samples inside the bounds, drawn without the global generators."""
        box = self.box(torch.empty((1, *self.classifier.input_shape)))
        shape = (count, *self.classifier.input_shape)
        drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        low, high = box.low.nan_to_num(neginf=0.0), box.high.nan_to_num(posinf=1.0)
        return box.clip(low + (high - low) * drawn)

    @property
    def precision(self) -> str | None:
        """What a classifier with `use_amp` trains in: float16 on a GPU. None for others."""
        return "fp16" if self.classifier.use_amp and self.device.type == "cuda" else None

    def follow(self) -> None:
        """Take the loss and the `clip_values` that the classifier has now."""
        self.criterion = Criterion(self.classifier.loss)
        self.bounds = _clip_values(self.classifier)

    def parts(self) -> dict[str, Any]:
        """What a run of this classifier must find again, beside its weights."""
        classifier = self.classifier
        return {
            "loss": self.criterion,
            "clip_values": classifier.clip_values,
            "preprocessing": list(classifier.preprocessing_operations),
        }

    def standardisation(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
        """Mean and standard deviation of ART's preprocessing, as they broadcast against inputs.

        None where they are 0 and 1, ART's default. Raises ValueError for preprocessing of any
        other kind.
        """
        operations = self.classifier.preprocessing_operations
        if others := [
            type(step).__name__
            for step in operations
            if not isinstance(step, StandardisationMeanStdPyTorch)
        ]:
            raise UsageError(
                f"{self.name} has the preprocessing {', '.join(others)}; allowed: "
                "preprocessing=(mean, std) alone"
            )
        if not operations:
            return None
        (step,) = operations
        if np.all(step.mean == 0) and np.all(step.std == 1):
            return None
        # As ART does it: one number, or one for each channel, in whichever shape.
        like = np.zeros((1, *self.classifier.input_shape), dtype=np.float32)
        mean, std = broadcastable_mean_std(like, step.mean, step.std)
        return np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def info(self, **known: Any) -> NetworkInfo:
        """What a file of the network says: of the classifier, and the attributes that are given.

        Raises ValueError for preprocessing of another kind than mean and standard deviation.
        """
        facts: dict[str, Any] = {
            "classes": int(self.classifier.nb_classes),
            "input_shape": tuple(map(int, self.classifier.input_shape)),
        }
        if self.bounds is not None and not is_auto(self.bounds):
            pair = [np.asarray(bound, dtype=np.float32) for bound in self.bounds]
            if all(np.isfinite(bound).all() for bound in pair):
                facts["bounds"] = tuple(bound.tolist() for bound in pair)
        if (found := self.standardisation()) is not None:
            axes = len(facts["input_shape"])  # without that of the batch
            mean, std = (v.reshape(v.shape[-axes:] if v.ndim > axes else v.shape) for v in found)
            facts["preprocessing"] = {"mean": mean.tolist(), "std": std.tolist()}
        return NetworkInfo(**facts, **known)

    @property
    def device(self) -> torch.device:
        """Where the classifier puts its inputs."""
        device: torch.device = self.classifier.device
        return device

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The classifier's optimizer; ValueError where it has none."""
        optimizer: torch.optim.Optimizer | None = self.classifier.optimizer
        if optimizer is None:
            raise UsageError(
                f"{self.name} has optimizer None; allowed: a torch.optim.Optimizer over its "
                "model's parameters, given to the PyTorchClassifier"
            )
        if not hasattr(optimizer, "param_groups"):
            raise WrongTypeError(
                f"{self.name} has a {type(optimizer).__name__} as optimizer; allowed: one "
                "torch.optim.Optimizer, whose groups may have learning rates of their own"
            )
        return optimizer

    def check_optimizer(self) -> None:
        """Raise ValueError unless the optimizer has parameters of the network and steps alone."""
        of_network = {id(parameter) for parameter in self.network.parameters()}
        if not any(id(parameter) in of_network for parameter in parameters_of(self.optimizer)):
            raise UsageError(
                f"{self.name} has an optimizer over none of its model's parameters; allowed: one "
                "made from model.parameters()"
            )
        needs = inspect.signature(type(self.optimizer).step).parameters.get("closure")
        if needs is not None and needs.default is needs.empty:
            raise UsageError(
                f"{self.name} has the optimizer {type(self.optimizer).__name__}, whose `step` "
                "needs a closure; allowed: one that takes a single step along the gradients, such "
                "as SGD or Adam"
            )

    def check_bounds(self, bounds: BoundsChoice) -> None:
        """Raise ValueError for `bounds` that were given and are not the classifier's own."""
        if is_auto(bounds):
            return
        like = torch.empty((1, *self.classifier.input_shape))  # float32, as ART keeps clip_values
        box, clip_values = Box.from_bounds(bounds, like), self.box(like)
        if not bool((box.low == clip_values.low).all() and (box.high == clip_values.high).all()):
            raise UsageError(
                f"bounds is {bounds!r} beside the {self.name}'s clip_values "
                f"{self.classifier.clip_values!r}; allowed with a classifier: the same, or "
                "leave bounds out (set its clip_values)"
            )

    def check_loss(self, loss: object) -> None:
        """Raise ValueError for a loss that is given beside the classifier's own."""
        if loss is not None:
            raise UsageError(
                f"loss is {loss!r} beside the {self.name}'s own; allowed with a classifier: None "
                "(set its loss)"
            )

    def inputs(self, x: object, name: str = "x", dtype: torch.dtype | None = None) -> Tensor:
        """Checked inputs as a new tensor on the CPU, of the model's type where `dtype` is None."""
        return super().inputs(x, name, dtype).cpu()

    def _check_shape(self, tensor: Tensor, name: str) -> None:
        if tuple(tensor.shape[1:]) != tuple(self.classifier.input_shape):
            raise UsageError(
                f"{name} has shape {tuple(tensor.shape)}; allowed: (N, "
                f"{', '.join(map(str, self.classifier.input_shape))}), the classifier's input_shape"
            )

    def labels(self, y: object, count: int, classes: int | None = None, name: str = "y") -> Tensor:
        """Index labels on the CPU, shape (N,), from indices or one-hot rows."""
        return super().labels(y, count, int(self.classifier.nb_classes), name)

    def targets(self, labels: Tensor) -> Tensor:
        """What the classifier's loss takes for index labels, as ART would hand it over."""
        classifier = self.classifier
        if classifier._reduce_labels and classifier._int_labels:
            return labels
        if classifier._reduce_labels:
            return labels.to(self.dtype)[:, None]
        return nn.functional.one_hot(labels, int(classifier.nb_classes)).to(self.dtype)

    def tensors(self, x: object, y: object, suffix: str = "") -> tuple[Tensor, Tensor]:
        """Checked inputs and loss targets, on the CPU."""
        inputs = self.inputs(x, f"x{suffix}")
        labels = self.labels(y, len(inputs), name=f"y{suffix}")
        return inputs, self.targets(labels)

    def network_mode(self, *, training: bool) -> AbstractContextManager[None]:
        """The network in train or eval mode for a while; ART's methods leave it in another."""
        return mode(self.network, training=training)

    def is_run_by_art(self, x: Tensor) -> bool:
        """Whether ART's own code can run the network on inputs like x, (N, ...).

        It takes float32 and a tensor of floating logits, where training takes other types and
        outputs.
        """
        if self.dtype != torch.float32:
            return False
        with torch.no_grad(), self.network_mode(training=False):
            logits: object = self.module(x[:1].to(self.device, torch.float32))
        return isinstance(logits, Tensor) and logits.is_floating_point()

    def predict(
        self, x: npt.NDArray[Any], batch_size: int = 128, **kwargs: Any
    ) -> npt.NDArray[Any]:
        """The classifier's own `predict`, or the logits where ART cannot run the network."""
        inputs = as_tensor("x", x)
        with self.network_mode(training=False):
            if self.is_run_by_art(inputs):
                if inputs.dtype == torch.float64:  # ART hands it over as it is
                    x = inputs.float().numpy()
                predictions: npt.NDArray[Any] = self.classifier.predict(
                    x, batch_size=batch_size, **kwargs
                )
                return predictions
            with torch.no_grad():
                batches = torch.split(inputs.to(self.device, self.dtype), batch_size)
                logits = [logits_of(self.module(batch)).float().cpu() for batch in batches]
        return torch.cat(logits).numpy()


def _clip_values(classifier: PyTorchClassifier) -> Bounds:
    """A classifier's `clip_values`, per-feature arrays in the shape of one input."""
    if classifier.clip_values is None:
        return None
    shape = tuple(classifier.input_shape)
    low, high = (
        value.reshape(shape) if value.size == math.prod(shape) else value
        for value in map(np.asarray, classifier.clip_values)
    )
    return low, high
