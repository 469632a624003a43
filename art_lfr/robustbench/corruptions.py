"""RobustBench's protocol for common corruptions, on images that a user holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from robustbench.utils import clean_accuracy
from torch import nn

from art_lfr.core.arguments import check_integer, check_type
from art_lfr.errors import UsageError
from art_lfr.robustbench.model_info import (
    append_unaggregated,
    check_entry,
    per_cent,
    read_reference,
    update_entry,
)
from art_lfr.robustbench.protocol import check_data, moved


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
    with moved(model, device) as there:
        clean = clean_accuracy(model, images, labels, batch_size=batch_size, device=there)
        print(f"Clean accuracy: {clean:.2%}")
        print(f"Evaluating over {len(dict(keys))} corruptions")
        for key in keys:
            images, labels = _checked_images(model, corrupted[key], key)
            accuracies[key] = clean_accuracy(
                model, images, labels, batch_size=batch_size, device=there
            )
            print(
                f"corruption={key[0]}, severity={key[1]}: {accuracies[key]:.2%} accuracy",
                flush=True,
            )
    accuracy = float(np.mean(list(accuracies.values())))
    print(f"Adversarial accuracy: {accuracy:.2%}")
    error = None if reference is None else mean_corruption_error(accuracies, reference)
    if to_disk:
        fields = {"clean_acc": per_cent(clean), "corruptions_acc": per_cent(accuracy)}
        if error is not None:
            fields["corruptions_mce"] = per_cent(error)
        append_unaggregated(directory, dataset, str(model_name), accuracies)
        update_entry(directory, dataset, "corruptions", str(model_name), fields)
    return CorruptionResult(clean, accuracy, error)


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
    ratios = [np.mean(found) / np.mean(expected[name]) for name, found in errors.items()]
    return float(np.mean(ratios))


def _checked_key(key: Any) -> tuple[str, int]:
    if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str)):
        raise UsageError(f"corrupted has the key {key!r}; allowed: (name of corruption, severity)")
    check_integer(f"severity in corrupted[{key!r}]", key[1], low=1)
    return key[0], int(key[1])


def _checked_images(model: nn.Module, pair: Any, key: tuple[str, int]) -> Any:
    try:
        x, y = pair
        images, labels, _ = check_data(model, x, y)
    except (ValueError, TypeError) as error:
        raise type(error)(f"corrupted[{key!r}]: {error}") from error
    return images, labels
