"""How the networks of a comparison are judged: images, attacks, masking report, machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_lfr.comparison.plan import Comparison
from art_lfr.core.arguments import Array
from art_lfr.core.geometry import parse_norm
from art_lfr.data import ImageData, digits, load
from art_lfr.errors import UsageError
from art_lfr.evaluation import Evaluation, evaluate
from art_lfr.masking import masking_report
from art_lfr.masking.report import FEWEST_SAMPLES
from art_lfr.storage.checkpoint import load_safely
from art_lfr.training.averaging import copied_state, put_state

CPU_INFO = Path("/proc/cpuinfo")


def describe_machine() -> str:
    """Processor, its cores, the threads that torch uses, and the GPU where there is one."""
    parts = [_processor(), f"{os.cpu_count()} cores", f"{torch.get_num_threads()} thread(s)"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def _processor() -> str:
    """The processor's own name; `platform` knows only its architecture on Linux."""
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return f"{value.strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Split:
    """Training images, the judged images, which of their part they are, and a digest of all.

    `digest` is that of `ImageData`, over the training images and the judged part.
    """

    x_train: Array
    y_train: Array
    x: Array
    y: Array
    first: int
    digest: str


def load_split(comparison: Comparison, split: int, directory: Path = Path()) -> Split:
    """The data of one split; ValueError where nothing is left to train on or to judge.

    A .npz file is sought in `directory`, unless its path is absolute.
    """
    c = comparison
    source = str(directory / c.data) if c.data.endswith(".npz") else c.data
    # Images to choose settings on: the test images are not even read.
    test = 0 if c.part == "validation" else c.images[1]
    if c.data == "digits":
        data = _pooled(digits(split)).take(train=c.train, validation=c.validation, test=test)
    else:
        data = load(source, train=c.train, validation=c.validation, test=test)
    x, y = getattr(data, f"x_{c.part}"), getattr(data, f"y_{c.part}")
    first, last = c.images
    x, y = x[first:last], y[first:last]
    if len(x) == 0:
        raise UsageError(
            f"images is {list(c.images)} of {c.part}, which leaves none; allowed: at least one"
        )
    return Split(data.x_train, data.y_train, x, y, first, data.digest)


def _pooled(data: ImageData) -> ImageData:
    """The small set's own validation images join the training images: a plan holds out its own."""
    return replace(
        data,
        x_train=np.concatenate([data.x_train, data.x_validation]),
        y_train=np.concatenate([data.y_train, data.y_validation]),
        x_validation=data.x_validation[:0],
        y_validation=data.y_validation[:0],
    )


def judge(classifier: PyTorchClassifier, split: Split, c: Comparison) -> Evaluation:
    """The attacks of a comparison on its images."""
    return evaluate(
        classifier,
        split.x,
        split.y,
        eps=c.eps,
        norm=parse_norm(c.norm),
        attacks=list(c.attacks),
    )


def figures(found: Evaluation) -> dict[str, Any]:
    """Accuracies, and which images each attack leaves right, as the bits of a hex number."""
    return {
        "accuracy": {row.name: row.accuracy for row in found.rows},
        "attack_seconds": {row.name: round(row.seconds, 1) for row in found.rows},
        "correct": {name: pack(correct) for name, correct in found.correct.items()},
        "flatness": found.flatness_summary,
        "notes": list(found.notes),
    }


def verdicts(classifier: PyTorchClassifier, split: Split, c: Comparison) -> dict[str, Any]:
    """The verdict of each check, or why there is no report."""
    x, y = split.x[: c.masking_images], split.y[: c.masking_images]
    right = int((classifier.predict(x).argmax(axis=1) == y).sum())
    if right < FEWEST_SAMPLES:
        return {"not run": f"only {right} of {len(x)} images are classified correctly"}
    report = masking_report(classifier, x, y, eps=c.eps, norm=parse_norm(c.norm))
    return {check.name: {"verdict": check.verdict, "found": check.found} for check in report.checks}


def judge_snapshots(
    classifier: PyTorchClassifier, split: Split, c: Comparison, home: Path, result: dict[str, Any]
) -> list[dict[str, Any]]:
    """The accuracies of the weights kept along the way; of the last ones `result` has them.

    The classifier has its weights back afterwards: the masking report comes next.
    """
    network, found = classifier.model.network, []
    final = copied_state(network)
    # Weights that a stopped training gives back are not those after its last epoch.
    finished = result["times"][-1]["epoch"] if "stopped" not in result else None
    for path in sorted(home.glob("epoch-*.pt"), key=lambda path: int(path.stem[6:])):
        epoch, accuracy = int(path.stem[6:]), result["accuracy"]
        if epoch != finished:
            network.load_state_dict(load_safely(path))
            accuracy = {row.name: row.accuracy for row in judge(classifier, split, c).rows}
        found.append({"epoch": epoch, "accuracy": accuracy})
    put_state(network, final)
    return found


def pack(correct: Any) -> str:
    """Booleans of shape (N,) as a hex string, eight to a byte, the first one the highest bit."""
    return np.packbits(np.asarray(correct, dtype=bool)).tobytes().hex()


def unpack(text: str, count: int) -> Any:
    """The booleans that `pack` took, shape (count,)."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))[:count].astype(bool)
