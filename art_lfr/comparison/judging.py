"""Judging one network of a comparison: its attacks, its masking report, the weights on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from art.estimators.classification import PyTorchClassifier

from art_lfr.comparison.data import Split
from art_lfr.comparison.plan import Comparison
from art_lfr.core.geometry import parse_norm
from art_lfr.evaluation import Evaluation, evaluate
from art_lfr.masking import masking_report
from art_lfr.masking.report import FEWEST_SAMPLES
from art_lfr.storage.checkpoint import load_safely
from art_lfr.training.averaging import copied_state, put_state


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
