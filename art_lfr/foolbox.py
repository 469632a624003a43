"""foolbox in ART: `FoolboxEvasion` makes an evasion attack of ART out of any foolbox attack."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor

from art_lfr.attacks.evasion import UnitBoxEvasion, unit_model
from art_lfr.attacks.named import preserved_attributes
from art_lfr.attacks.target import UnitBoxModule
from art_lfr.core.arguments import check_number, check_type
from art_lfr.core.geometry import per_sample
from art_lfr.core.imports import require
from art_lfr.errors import UsageError

__all__ = ["FoolboxEvasion", "unit_model"]

foolbox: Any = require("foolbox", "foolbox")
eagerpy: Any = require("eagerpy", "foolbox")


class FoolboxEvasion(UnitBoxEvasion):
    """Any attack of foolbox as an evasion attack of ART.

    The attack gets a `foolbox.PyTorchModel` of images in [0, 1], which stand for the classifier's
    `clip_values`, with the classifier's preprocessing inside. Lengths in the foolbox object
    (`abs_stepsize` and the like) are in units of the width of `clip_values`; `eps` here is in raw
    units. The classifier's modes, flags, `.grad` and buffers come back, also where the attack
    raises.

    With eps None, `generate` returns the closest adversarial example of each sample, or the sample
    unchanged where foolbox finds none. With eps, foolbox looks for one within eps, and its result
    is clipped to eps, successful or not; an L0 example that changes more than eps values counts as
    none.

    An attack that starts from an adversarial example (pointwise, boundary, HopSkipJump,
    Brendel-Bethge) starts from `starting_points`, a keyword of `generate` with raw inputs in the
    shape of x, or else from what its `init_attack`, or foolbox's default for it, finds. A sample
    without a start is returned unchanged; foolbox alone would give up on the whole batch.
    A `DatasetAttack` that was given no images takes the other samples of the batch.

    Args:
        classifier: A `PyTorchClassifier` with finite `clip_values`, equally wide for all features.
        attack: A `foolbox.attacks` object, or one after `repeat(times)`.
        eps: Radius in the attack's own norm, >= 0: raw units, or for L0 a number of values. None:
            without limit; attacks of a fixed radius (PGD, FGSM and the like) need one.
        targeted: y of `generate` are labels to reach.
        batch_size: Samples at a time.
        seed: Seeds torch's, NumPy's and Python's generators, from which foolbox draws, for each
            call of `generate`. None: by a number from torch's global generator, so that calls
            differ. Either way the generators are left as they were, except for that number.

    Raises:
        ImportError: On import of this module, where foolbox is missing.
        TypeError, ValueError: For bad arguments, naming the parameter; ValueError from `generate`
            where the attack cannot do what `targeted` says.
    """

    attack_params: ClassVar[list[str]] = [*UnitBoxEvasion.attack_params, "eps"]
    _library = "foolbox"
    _data_keywords = ("starting_points",)

    def __init__(
        self,
        classifier: Any,
        attack: Any,
        *,
        eps: float | None = None,
        targeted: bool = False,
        batch_size: int = 128,
        seed: int | None = None,
    ) -> None:
        self.eps = eps
        super().__init__(classifier, attack, targeted=targeted, batch_size=batch_size, seed=seed)

    def _check_params(self) -> None:
        super()._check_params()
        check_type("attack", self.attack, foolbox.Attack, "a foolbox attack")
        check_number("eps", self.eps, optional=True)
        inner = _unrepeated(self.attack)
        kind = type(inner).__name__
        if self.eps is None and isinstance(inner, foolbox.attacks.base.FixedEpsilonAttack):
            raise UsageError(
                f"eps is None with {kind}; allowed: a number, which {kind} needs (in evaluate: "
                "AttackSpec(attack, norm=..., eps=...))"
            )
        if self.eps is not None and exponent(inner) is None:
            raise UsageError(
                f"eps is {self.eps!r} with {kind}, which has no norm; allowed: None, or for some "
                "attacks distance=foolbox.distances.linf and the like"
            )

    def _run_batch(
        self, module: UnitBoxModule, images: Tensor, labels: Tensor, **data: Tensor
    ) -> Tensor:
        inner = _unrepeated(self.attack)
        with preserved_attributes([inner]):
            model = foolbox.PyTorchModel(module, bounds=(0, 1), device=images.device)
            takes_starts = "starting_points" in inspect.signature(inner.run).parameters
            if takes_starts and (data or not _starts_at_the_image(inner)):
                return self._from_starts(model, module.width, images, labels, **data)
            if data:
                raise UsageError(
                    f"starting_points are given to {type(inner).__name__}; allowed: None, as it "
                    "takes none"
                )
            takes_images = isinstance(inner, foolbox.attacks.DatasetAttack)
            if takes_images and inner.inputs is None and not inner.raw_inputs:
                inner.raw_inputs, inner.raw_outputs = [], []
                inner.feed(model, images)
            return self._attacked(model, module.width, images, labels)

    def _from_starts(
        self,
        model: Any,
        width: float,
        images: Tensor,
        labels: Tensor,
        starting_points: Tensor | None = None,
    ) -> Tensor:
        """Attack the samples that have an adversarial example to start from."""
        criterion = self._criterion(labels)
        if starting_points is None:
            starting_points = _first_attack(self.attack).run(model, images, criterion)
        ready = criterion(starting_points, model(starting_points))
        adversarial = images.clone()
        if bool(ready.any()):
            adversarial[ready] = self._attacked(
                model,
                width,
                images[ready],
                labels[ready],
                # FMN does not convert them itself.
                starting_points=eagerpy.astensor(starting_points[ready]),
            )
        return adversarial

    def _attacked(
        self, model: Any, width: float, images: Tensor, labels: Tensor, **keywords: Any
    ) -> Tensor:
        """What foolbox finds, by the rules of the class."""
        counted = exponent(_unrepeated(self.attack)) == 0
        limited = self.eps is not None and not counted
        try:
            _, adversarial, success = self.attack(
                model,
                images,
                self._criterion(labels),
                # foolbox cannot clip in L0.
                epsilons=self.eps / width if self.eps is not None and limited else None,
                **keywords,
            )
        except ValueError as error:
            if str(error) != "unsupported criterion":
                raise
            raise UsageError(
                f"targeted is {self.targeted}, which {type(self.attack).__name__} does not "
                f"support; allowed: {not self.targeted}"
            ) from error
        if limited:
            return torch.as_tensor(adversarial)
        if self.eps is not None:
            success = success & ((adversarial != images).flatten(1).sum(dim=1) <= self.eps)
        return torch.where(per_sample(success, images), adversarial, images)

    def _criterion(self, labels: Tensor) -> Any:
        if self.targeted:
            return foolbox.criteria.TargetedMisclassification(labels)
        return foolbox.criteria.Misclassification(labels)


def _unrepeated(attack: Any) -> Any:
    """The attack inside `attack.repeat(times)`."""
    while isinstance(attack, foolbox.attacks.base.Repeated):
        attack = attack.attack
    return attack


def exponent(attack: Any) -> float | None:
    """p of the attack's distance, or None where it has none."""
    try:
        p = getattr(attack.distance, "p", None)
    except (AttributeError, ValueError):  # no distance, or one left for the user to choose
        return None
    return None if p is None else float(p)


def _starts_at_the_image(attack: Any) -> bool:
    """Whether an attack that may be given a start does well without."""
    optional = isinstance(attack, foolbox.attacks.fast_minimum_norm.FMNAttackLp)
    return optional and attack.init_attack is None


def _first_attack(attack: Any) -> Any:
    """What finds starting points for an attack; ValueError where it has nothing of the kind."""
    inner = _unrepeated(attack)
    if not hasattr(inner, "init_attack"):
        raise UsageError(
            f"starting_points is None with {type(inner).__name__}; allowed: raw inputs in the "
            "shape of x, as a keyword of generate()"
        )
    if inner.init_attack is not None:
        return inner.init_attack
    # foolbox's own defaults.
    if isinstance(inner, foolbox.attacks.PointwiseAttack):
        return foolbox.attacks.SaltAndPepperNoiseAttack()
    return foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50)
