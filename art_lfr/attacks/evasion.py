"""What an attack of another library needs to be an evasion attack of ART, in one place.

Such attacks work on tensors in [0, 1] and may switch modes, reseed generators and clear gradients.
The base class here maps, batches, checks and puts back; a subclass runs its library on one batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from art.attacks import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.attacks.target import LogitsModule, UnitBox, UnitBoxModule, untouched
from art_lfr.core.arguments import Array, check_integer, check_seed, check_type, reject_unknown
from art_lfr.core.geometry import per_sample
from art_lfr.core.randomness import preserved_random_state, seed_global_generators
from art_lfr.core.samples import to_array
from art_lfr.errors import UsageError

INSTEAD = "attacks of ART, which take any clip_values"


class UnitBoxEvasion(EvasionAttack):
    """Base of ART evasion attacks that another library's attack object carries out.

    The attack sees the classifier as a module from images in [0, 1], which stand for its
    `clip_values`, to logits; preprocessing is inside. A subclass implements `_run_batch`.
    """

    attack_params: ClassVar[list[str]] = [
        *EvasionAttack.attack_params,
        "attack",
        "targeted",
        "batch_size",
        "seed",
    ]
    _estimator_requirements = (PyTorchClassifier,)
    # The library's name in errors, and the keywords of `generate` that hold a value per sample.
    _library = ""
    _data_keywords: tuple[str, ...] = ()

    def __init__(
        self,
        classifier: Any,
        attack: Any,
        *,
        targeted: bool = False,
        batch_size: int = 128,
        seed: int | None = None,
    ) -> None:
        super().__init__(estimator=classifier)  # ART's EstimatorError for anything else
        ClassifierAdapter(classifier)
        self.attack = attack
        self.batch_size = batch_size
        self.seed = seed
        self._targeted = targeted
        self._check_params()

    def set_params(self, **kwargs: Any) -> None:
        """Change parameters; where one is refused, all stay as they were."""
        before = dict(self.__dict__)
        try:
            super().set_params(**kwargs)
        except Exception:
            self.__dict__.update(before)
            raise

    def _check_params(self) -> None:
        super()._check_params()
        check_type("targeted", self.targeted, bool, "True or False")
        check_integer("batch_size", self.batch_size, low=1)
        check_seed("seed", self.seed, optional=True)

    def generate(self, x: Array, y: Any = None, **kwargs: Any) -> Array:
        """Attack each sample.

        Args:
            x: Inputs, shape (N, *input_shape), inside `clip_values`, in raw units.
            y: True labels, or where `targeted` the labels to reach: indices, shape (N,), or
                one-hot rows. None: the predicted labels are the true ones.
            **kwargs: What an attack takes beside them, one value per sample.

        Returns:
            Adversarial examples, shape and type of x, inside `clip_values`. A coordinate that the
            attack left alone has exactly its value in x; a sample for which it gave NaN is
            returned unchanged.

        Raises:
            ValueError, TypeError: For bad data, naming the parameter.
        """
        # ART's generic code passes these to every attack.
        generic = [name for name in ("mask", "x_init") if kwargs.get(name, 0) is None]
        reject_unknown("generate()", kwargs, ("x", "y", *generic, *self._data_keywords))
        self._check_params()
        adapter = ClassifierAdapter(self.estimator)
        start = adapter.inputs(x).float()
        if y is None and self.targeted:
            raise UsageError("y is None with targeted True; allowed: the labels to reach")
        labels = None if y is None else adapter.labels(y, len(start))
        box = adapter.box(start)
        unit_box = UnitBox.of(box, self._library, INSTEAD)
        data = {
            name: unit_box.to_unit(adapter.inputs(value, name).float())
            for name, value in kwargs.items()
            if value is not None
        }
        for name, value in data.items():
            if len(value) != len(start):
                raise UsageError(
                    f"{name} has {len(value)} samples for {len(start)} in x; allowed: one for each"
                )
        module = unit_box.module(LogitsModule(adapter.module, adapter.dtype))
        device = adapter.device
        raw = []
        with own_randomness(self.seed, device), untouched(module, device):
            for i in range(0, len(start), self.batch_size):
                part = slice(i, i + self.batch_size)
                batch = start[part].to(device)
                unit = unit_box.to_unit(batch)
                true = module(unit).argmax(dim=1) if labels is None else labels[part].to(device)
                more = {name: value[part].to(device) for name, value in data.items()}
                examples = self._run_batch(module, unit.clone(), true, **more).detach().to(unit)
                examples = torch.where(finite_samples(examples), examples, unit)
                raw.append(unit_box.to_example(examples, batch, module.network, box).cpu())
        result, values = torch.cat(raw), x if isinstance(x, np.ndarray) else to_array("x", x)
        # The values of x themselves, which may be of a wider type than the attack computes in.
        adversarial: Array = np.where(
            (result == start).numpy(), values, result.numpy().astype(values.dtype)
        )
        return adversarial

    @abstractmethod
    def _run_batch(
        self, module: UnitBoxModule, images: Tensor, labels: Tensor, **data: Tensor
    ) -> Tensor:
        """Adversarial images of one batch in [0, 1]."""


def unit_model(classifier: Any) -> nn.Module:
    """An ART classifier as attack libraries take a model: images in [0, 1] to logits.

    x = low + (high - low) * image with the classifier's `clip_values`, then preprocessing, then
    the network, whose weights are shared. Raises ValueError where `clip_values` are not finite
    and equally wide for all features.
    """
    adapter = ClassifierAdapter(classifier)
    like = torch.empty((1, *adapter.classifier.input_shape))
    unit_box = UnitBox.of(adapter.box(like), "unit_model()", INSTEAD)
    module = unit_box.module(LogitsModule(adapter.module, adapter.dtype))
    # Modules are made in train mode, and attack libraries put back what they find at the root.
    for wrapper in (module, module.network, adapter.module):
        wrapper.training = adapter.network.training
    return module


def finite_samples(x: Tensor) -> Tensor:
    """Which samples are finite, shaped to broadcast against x."""
    return per_sample(x.flatten(1).isfinite().all(dim=1), x)


@contextmanager
def own_randomness(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seeded global generators for an attack, whose states come back afterwards.

    Attacks draw from the global generators, and some reseed them. With `seed` None one number is
    drawn from torch's global generator and seeds the attack, so that calls differ, as they do with
    ART's own attacks, and `torch.manual_seed` makes them repeat.
    """
    if seed is None:
        seed = int(torch.randint(2**31, ()))
    with preserved_random_state(device):
        seed_global_generators(seed)
        yield
