"""RobustBench's protocols on a user's own images: `benchmark`, `benchmark_corruptions`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from autoattack import AutoAttack
from autoattack.state import EvaluationState
from robustbench.utils import clean_accuracy
from torch import Tensor, nn

from art_lfr.attacks.target import count_classes, preserved
from art_lfr.autoattack.backend import FEWEST_CLASSES
from art_lfr.core.arguments import (
    check_integer,
    check_number,
    check_type,
)
from art_lfr.core.modes import device_of
from art_lfr.core.names import parse_norm
from art_lfr.core.samples import as_tensor, check_inputs, class_labels
from art_lfr.data import MOST_CHANNELS
from art_lfr.errors import UsageError
from art_lfr.robustbench.entry import (
    append_unaggregated,
    check_entry,
    per_cent,
    read_reference,
    update_entry,
)


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
    value in both, so are the numbers. The differences: data and file names are checked before the
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
    fewest = FEWEST_CLASSES["apgd-t"]
    if classes < fewest:
        raise UsageError(
            f"model has {classes} classes; allowed: at least {fewest}, which the loss of "
            "standard AutoAttack needs (art_lfr.autoattack.run_autoattack leaves it out)"
        )
    with moved(model, device) as where:
        accuracy = clean_accuracy(model, images, labels, batch_size=batch_size, device=where)
        print(f"Clean accuracy: {accuracy:.2%}")
        adversary = AutoAttack(
            model,
            norm=threat_model,
            eps=eps,
            seed=seed,
            version="standard",
            device=where,
            log_path=log_path,
        )
        for attack in (adversary.apgd_targeted, adversary.fab):
            attack.n_target_classes = min(attack.n_target_classes, classes - 1)
        state = None if state_path is None else Path(state_path)
        examples = adversary.run_standard_evaluation(
            images, labels, bs=batch_size, state_path=state
        )
        if state is None:
            robust = clean_accuracy(model, examples, labels, batch_size=batch_size, device=where)
        else:
            # The original returns the examples of the last run only.
            robust = float(EvaluationState.from_disk(state).robust_flags.double().mean())
    print(f"Adversarial accuracy: {robust:.2%}")
    if to_disk:
        fields = {"eps": eps, "clean_acc": per_cent(accuracy), "autoattack_acc": per_cent(robust)}
        update_entry(directory, dataset, threat_model, str(model_name), fields)
    return accuracy, robust


class CorruptionResult(NamedTuple):
    """Accuracy without corruption, mean accuracy with, and the error relative to AlexNet's.

    `mean_corruption_error` is None where AlexNet's accuracies are not known.
    """

    clean: float
    accuracy: float
    mean_corruption_error: float | None


def benchmark_corruptions(
    model: nn.Module,
    x: Any,
    y: Any,
    corrupted: Mapping[tuple[str, int], tuple[Any, Any]],
    *,
    reference: Mapping[tuple[str, int], float] | None = None,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    to_disk: bool = False,
    model_name: str | None = None,
    dataset: str = "cifar10",
    directory: str | Path = "model_info",
) -> CorruptionResult:
    """Accuracy on corrupted images, as `robustbench.benchmark` with "corruptions" finds it.

    The accuracy is the mean over all (corruption, severity). The mean corruption error is the mean
    over corruptions c of sum_s (1 - a_cs) / sum_s (1 - r_cs), with r the reference.

    Args:
        model: Maps images in [0, 1], shape (N, C, H, W), to logits, normalisation inside.
        x: Images in [0, 1] without corruption, shape (N, C, H, W).
        y: Index labels, shape (N,).
        corrupted: (corruption, severity) -> (images, labels), in the order to be run. A mapping
            that reads them when asked keeps one at a time in memory.
        reference: (corruption, severity) -> accuracy of AlexNet. None: the row "AlexNet" of
            `directory/dataset/corruptions/unaggregated_results.csv`, if there is one. (RobustBench
            itself fails without that file, which its wheel lacks.)
        batch_size: Samples at a time.
        device: Where to run; None: where the model is.
        to_disk: Write `directory/dataset/corruptions/model_name.json` and a row of the csv file.
        model_name: Name of the entry; needed with `to_disk`.
        dataset: Folder and field of the entry.
        directory: Where the entries are.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
    """
    check_integer("batch_size", batch_size, low=1)
    check_type("corrupted", corrupted, Mapping, "a mapping (corruption, severity) -> (x, y)")
    keys = [_checked_key(key) for key in corrupted]
    if not keys:
        raise UsageError("corrupted is empty; allowed: at least one (corruption, severity)")
    if to_disk:
        check_entry(directory, dataset, model_name)
    reference = read_reference(directory, dataset) if reference is None else reference
    missing = [key for key in keys if reference is not None and key not in reference]
    if missing:
        raise UsageError(
            f"reference has no accuracy for {missing[0]}; allowed: one for each key of corrupted"
        )
    images, labels, _ = check_data(model, x, y)
    accuracies: dict[tuple[str, int], float] = {}
    with moved(model, device) as where:
        clean = clean_accuracy(model, images, labels, batch_size=batch_size, device=where)
        print(f"Clean accuracy: {clean:.2%}")
        print(f"Evaluating over {len(dict(keys))} corruptions")
        for key in keys:
            try:
                x, y = corrupted[key]
                images, labels, _ = check_data(model, x, y)
            except (ValueError, TypeError) as error:
                raise type(error)(f"corrupted[{key!r}]: {error}") from error
            accuracies[key] = clean_accuracy(
                model, images, labels, batch_size=batch_size, device=where
            )
            print(
                f"corruption={key[0]}, severity={key[1]}: {accuracies[key]:.2%} accuracy",
                flush=True,
            )
    accuracy = float(np.mean(list(accuracies.values())))
    print(f"Adversarial accuracy: {accuracy:.2%}")
    relative = None if reference is None else mean_corruption_error(accuracies, reference)
    if to_disk:
        fields = {"clean_acc": per_cent(clean), "corruptions_acc": per_cent(accuracy)}
        if relative is not None:
            fields["corruptions_mce"] = per_cent(relative)
        append_unaggregated(directory, dataset, str(model_name), accuracies)
        update_entry(directory, dataset, "corruptions", str(model_name), fields)
    return CorruptionResult(clean, accuracy, relative)


def mean_corruption_error(
    accuracies: Mapping[tuple[str, int], float], reference: Mapping[tuple[str, int], float]
) -> float:
    """The mean over corruptions of the error relative to the reference's, summed over severities.

    Source: Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions
    and perturbations", ICLR 2019.
    """
    errors: dict[str, list[float]] = {}
    expected: dict[str, list[float]] = {}
    for key, accuracy in accuracies.items():
        errors.setdefault(key[0], []).append(1 - accuracy)
        expected.setdefault(key[0], []).append(1 - reference[key])
    ratios = [np.mean(values) / np.mean(expected[name]) for name, values in errors.items()]
    return float(np.mean(ratios))


def _checked_key(key: Any) -> tuple[str, int]:
    if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str)):
        raise UsageError(f"corrupted has the key {key!r}; allowed: (name of corruption, severity)")
    check_integer(f"severity in corrupted[{key!r}]", key[1], low=1)
    return key[0], int(key[1])


def parse_threat_model(norm: float | str) -> str:
    """RobustBench's name of a norm, "Linf" or "L2"; ValueError for any other."""
    try:
        return {math.inf: "Linf", 2.0: "L2"}[parse_norm(norm)]
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
    images = _unit_images(x).cpu().float()
    classes = count_classes(model, images, device_of(model, images))
    return images, class_labels("y", y, len(images), classes), classes


@contextmanager
def moved(model: nn.Module, device: str | torch.device | None) -> Iterator[torch.device]:
    """The model in eval mode on a device, back afterwards, with all else as found."""
    home = device_of(model, torch.empty(0))
    where = home if device is None else torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device is {str(device)!r}, but torch sees no GPU; allowed here: 'cpu'")
    with preserved(model, where):
        try:
            if where != home:
                model.to(where)
            yield where
        finally:
            if where != home:
                model.to(home)


def _unit_images(x: object) -> Tensor:
    """Images in [0, 1] as a tensor, shape (N, C, H, W), floating point; errors say what to do."""
    images = as_tensor("x", x)
    if not images.is_floating_point():
        raise UsageError(
            f"x has dtype {images.dtype}; allowed: floating point images in [0, 1] "
            "(x.float() / 255 for bytes)"
        )
    check_inputs("x", images)
    if images.dim() != 4:
        raise UsageError(
            f"x has shape {tuple(images.shape)}; allowed: images of shape (N, C, H, W)"
        )
    if images.shape[3] <= MOST_CHANNELS < min(images.shape[1:3]):
        raise UsageError(
            f"x has shape {tuple(images.shape)}, which looks like (N, H, W, C); allowed: "
            "(N, C, H, W), as x.transpose(0, 3, 1, 2) of an array is"
        )
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        advice = "keep the images raw and put mean and standard deviation into the model"
        advice = advice if low < 0 else "divide x by 255"
        raise UsageError(
            f"x has values from {low:g} to {high:g}; allowed: images in [0, 1] ({advice})"
        )
    return images
