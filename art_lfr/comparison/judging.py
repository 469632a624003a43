"""How the networks of a comparison are judged: images, attacks, masking report, machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_lfr.comparison.plan import Comparison
from art_lfr.core.arguments import Array
from art_lfr.core.names import parse_norm
from art_lfr.data import ImageData, digits, load
from art_lfr.errors import UsageError
from art_lfr.evaluation import Evaluation, evaluate
from art_lfr.evaluation.results import finite_or_none
from art_lfr.masking import masking_report
from art_lfr.storage.records import pack
from art_lfr.storage.tensor_files import load_safely
from art_lfr.training.averaging import copied_state, put_state


@dataclass(frozen=True)
class Split:
    """Training images, the judged images, the index of the first of these, and a digest of all.

    `digest` is that of `ImageData`, over the training images and the judged part.
    """

    x_train: Array
    y_train: Array
    x: Array
    y: Array
    first: int
    digest: str


def data_file(c: Comparison, directory: Path) -> Path | None:
    """The .npz file of a comparison, sought in `directory` unless its path is absolute."""
    return directory / c.data if c.data.endswith(".npz") else None


def load_split(comparison: Comparison, split: int, directory: Path = Path()) -> Split:
    """The data of one split; ValueError where nothing is left to train on or to judge.

    A .npz file is sought in `directory`, unless its path is absolute.
    """
    c = comparison
    source = str(data_file(c, directory) or c.data)
    # Where settings are chosen, the test images are not even read.
    test = 0 if c.part == "validation" else c.images[1]
    if c.data == "digits":
        data = _pooled(digits(split)).take(train=c.train, validation=c.validation, test=test)
    else:
        data = load(source, train=c.train, validation=c.validation, test=test)
    first, last = c.images
    x, y = (getattr(data, f"{letter}_{c.part}")[first:last] for letter in "xy")
    if len(x) == 0:
        raise UsageError(
            f"images is {list(c.images)} of {c.part}, which leaves none; allowed: at least one"
        )
    return Split(data.x_train, data.y_train, x, y, first, data.digest)


def _pooled(data: ImageData) -> ImageData:
    """Digits with its validation images among the training images: a plan reserves its own."""
    return replace(
        data,
        x_train=np.concatenate([data.x_train, data.x_validation]),
        y_train=np.concatenate([data.y_train, data.y_validation]),
        x_validation=data.x_validation[:0],
        y_validation=data.y_validation[:0],
    )


def judge(
    classifier: PyTorchClassifier, split: Split, c: Comparison, *, verbose: bool = False
) -> Evaluation:
    """The attacks of a comparison on its images; `verbose` as in `evaluate`."""
    return evaluate(
        classifier,
        split.x,
        split.y,
        eps=c.eps,
        norm=parse_norm(c.norm),
        attacks=list(c.attacks),
        verbose=verbose,
    )


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Accuracies, and which images each attack leaves right, as the bits of a hex number."""
    correct = {name: pack(torch.from_numpy(rows)) for name, rows in evaluation.correct.items()}
    return {
        "accuracy": {row.name: row.accuracy for row in evaluation.rows},
        "attack_seconds": {row.name: round(row.seconds, 1) for row in evaluation.rows},
        "correct": correct,
        "flatness": {k: finite_or_none(v) for k, v in evaluation.flatness_summary.items()},
        "notes": list(evaluation.notes),
    }


def verdicts(classifier: PyTorchClassifier, split: Split, c: Comparison) -> dict[str, Any]:
    """The verdict of each check, or why there is no report."""
    x, y = split.x[: c.masking_images], split.y[: c.masking_images]
    report = masking_report(classifier, x, y, eps=c.eps, norm=parse_norm(c.norm))
    if not report.judged:
        return {"not run": report.checks[0].found}
    return {check.name: {"verdict": check.verdict, "found": check.found} for check in report.checks}


def judge_snapshots(
    classifier: PyTorchClassifier, split: Split, c: Comparison, home: Path, result: dict[str, Any]
) -> list[dict[str, Any]]:
    """The accuracies of the weights kept during training; `result` has those of the last ones.

    The classifier's own weights are restored: the masking report comes next.
    """
    network, snapshots = classifier.model.network, []
    final = copied_state(network)
    # A stopped training returns other weights than those after its last epoch.
    finished = result["times"][-1]["epoch"] if "stopped" not in result else None
    for path in sorted(home.glob("epoch-*.pt"), key=lambda path: int(path.stem[6:])):
        epoch, accuracy = int(path.stem[6:]), result["accuracy"]
        if epoch != finished:
            network.load_state_dict(load_safely(path))
            accuracy = {row.name: row.accuracy for row in judge(classifier, split, c).rows}
        snapshots.append({"epoch": epoch, "accuracy": accuracy})
    put_state(network, final)
    return snapshots
