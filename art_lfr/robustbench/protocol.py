"""RobustBench's protocol for l_p threat models, on images that a user holds: `benchmark`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from autoattack import AutoAttack
from autoattack.state import EvaluationState
from robustbench.utils import clean_accuracy
from torch import Tensor, nn

from art_lfr.attacks.image_checks import check_class_indices, check_unit_images
from art_lfr.attacks.target import unharmed
from art_lfr.core.arguments import check_integer, check_number, check_type
from art_lfr.core.geometry import parse_norm
from art_lfr.core.modes import device_of
from art_lfr.errors import UsageError
from art_lfr.robustbench.model_info import check_entry, per_cent, update_entry

# The targeted DLR loss of standard AutoAttack needs the fourth largest logit.
FEWEST_CLASSES = 4


def benchmark(
    model: nn.Module,
    x: Any,
    y: Any,
    eps: float,
    norm: float | str = "Linf",
    seed: float | None = 0,
    *,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    log_path: str | Path | None = None,
    state_path: str | Path | None = None,
    to_disk: bool = False,
    model_name: str | None = None,
    dataset: str = "cifar10",
    directory: str | Path = "model_info",
) -> tuple[float, float]:
    """Clean accuracy and accuracy under standard AutoAttack, as `robustbench.benchmark` finds them.

    Steps, printed lines and JSON are RobustBench's; with `AutoAttack.get_seed` patched to the same
    value in both, so are the numbers. Different are: data and file names are checked before the
    first attack; the model runs in eval mode, and modes, flags, gradients, device and the global
    random state are left as found; an attack has a seed; with fewer than ten classes the targeted
    attacks use as many targets as there are.

    Args:
        model: Maps images in [0, 1], shape (N, C, H, W), to logits, normalisation inside.
        x: Images in [0, 1], shape (N, C, H, W).
        y: Index labels, shape (N,).
        eps: Radius of the ball, > 0.
        norm: "Linf" or "L2" (or np.inf, 2).
        seed: Seed of every attack; None takes the clock, as RobustBench does.
        batch_size: Samples at a time; it decides which samples share random numbers.
        device: Where to run; None: where the model is.
        log_path: File to which AutoAttack's lines are appended.
        state_path: File to go on from and to write after each batch.
        to_disk: Write `directory/dataset/norm/model_name.json`, or update it.
        model_name: Name of the entry; needed with `to_disk`.
        dataset: Folder and field of the entry.
        directory: Where the entries are.

    Returns:
        Clean and adversarial accuracy, shares of N.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.

    Source: Croce et al., "RobustBench: a standardized adversarial robustness benchmark", 2021.
    """
    check_number("eps", eps, low_allowed=False)
    threat_model = parse_threat_model(norm)
    check_number("seed", seed, optional=True)
    check_integer("batch_size", batch_size, low=1)
    if to_disk:
        check_entry(directory, dataset, model_name)
    images, labels, classes = check_data(model, x, y)
    if classes < FEWEST_CLASSES:
        raise UsageError(
            f"model has {classes} classes; allowed: at least {FEWEST_CLASSES}, which the loss of "
            "standard AutoAttack needs (art_lfr.autoattack.run_autoattack leaves it out)"
        )
    with moved(model, device) as there:
        accuracy = clean_accuracy(model, images, labels, batch_size=batch_size, device=there)
        print(f"Clean accuracy: {accuracy:.2%}")
        adversary = AutoAttack(
            model,
            norm=threat_model,
            eps=eps,
            seed=seed,
            version="standard",
            device=there,
            log_path=log_path,
        )
        for attack in (adversary.apgd_targeted, adversary.fab):
            attack.n_target_classes = min(attack.n_target_classes, classes - 1)
        state = None if state_path is None else Path(state_path)
        found = adversary.run_standard_evaluation(images, labels, bs=batch_size, state_path=state)
        if state is None:
            robust = clean_accuracy(model, found, labels, batch_size=batch_size, device=there)
        else:
            # The original returns the examples of the last run only.
            robust = float(EvaluationState.from_disk(state).robust_flags.double().mean())
    print(f"Adversarial accuracy: {robust:.2%}")
    if to_disk:
        fields = {"eps": eps, "clean_acc": per_cent(accuracy), "autoattack_acc": per_cent(robust)}
        update_entry(directory, dataset, threat_model, str(model_name), fields)
    return accuracy, robust


def parse_threat_model(norm: float | str) -> str:
    """RobustBench's name of a norm, "Linf" or "L2"; ValueError for any other."""
    text = norm.removeprefix("L") if isinstance(norm, str) else norm
    try:
        return {math.inf: "Linf", 2.0: "L2"}[parse_norm(text)]
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"norm is {norm!r}; allowed: 'Linf' and 'L2' (or np.inf and 2), RobustBench's norms; "
            "for corruptions: benchmark_corruptions"
        ) from error


def check_data(model: object, x: Any, y: Any) -> tuple[Tensor, Tensor, int]:
    """Images (N, C, H, W) and index labels (N,) on the CPU, checked, and the number of classes.

    Raises ValueError or TypeError, naming the parameter.
    """
    check_type("model", model, nn.Module, "a torch.nn.Module")
    assert isinstance(model, nn.Module)
    images = check_unit_images("x", x).cpu().float()
    device = device_of(model, images)
    with unharmed(model, device), torch.no_grad():
        logits = model(images[:2].clone().to(device))
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] < 2:
        told = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"model gives {told} for {len(images[:2])} samples; allowed: a tensor of logits, shape "
            "(N, classes), at least two classes"
        )
    classes = logits.shape[1]
    return images, check_class_indices("y", y, len(images), classes).cpu(), classes


@contextmanager
def moved(model: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
    """The model in eval mode on a device, back afterwards, with all else as found."""
    home = device_of(model, torch.empty(0))
    there = home if device is None else torch.device(device)
    if there.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device is {str(device)!r}, but torch sees no GPU; allowed here: 'cpu'")
    with unharmed(model, there):
        try:
            if there != home:
                model.to(there)
            yield there
        finally:
            if there != home:
                model.to(home)
