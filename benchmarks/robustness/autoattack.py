"""AutoAttack and a masking report for each network of `networks/`.

    python benchmarks/robustness/autoattack.py --data-dir DIRECTORY --state-dir STATE
    python benchmarks/robustness/autoattack.py --data-dir DIRECTORY --only digits

The standard AutoAttack on 1,000 test images of the network's table (digits: all 450), the masking
report on the first 200 of them. Takes from a minute (digits) to an hour (the paper's CNN) for
each network on one core. Writes `autoattack.json` beside this file. A killed run goes on from
STATE; a network whose weights are those of its entry is not attacked again.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from shipped import NETWORKS, runs

from art_lfr import masking_report
from art_lfr.autoattack import run_autoattack
from art_lfr.comparison.judging import load_split
from art_lfr.comparison.plan import Comparison
from art_lfr.core.intervals import wilson_interval
from art_lfr.models import load_network, network_info
from art_lfr.storage.files import write_atomically

MEASURED = Path(__file__).parent / "autoattack.json"
IMAGES, FOR_MASKING = 1000, 200


def judged_images(comparison: Comparison, data_dir: Path) -> tuple[Any, Any, tuple[int, int]]:
    """Images, labels, and which of the test images they are."""
    first = comparison.images[0]
    whole = replace(comparison, images=(first, first + IMAGES))
    split = load_split(whole if comparison.data != "digits" else comparison, 0, data_dir)
    return split.x, split.y, (first, first + len(split.x))


def main(
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plans lie.")] = Path(),
    state_dir: Annotated[Path, typer.Option(help="Where a run is kept as it goes.")] = Path(
        "autoattack-state"
    ),
    only: Annotated[str, typer.Option(help="Networks whose name contains this.")] = "",
) -> None:
    """Attack what is not attacked yet."""
    state_dir.mkdir(parents=True, exist_ok=True)
    for name, _, run in runs(only, data_dir):
        path = NETWORKS / f"{name}.safetensors"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
        if measured.get(name, {}).get("sha256") == digest:
            continue
        info, network = network_info(path), load_network(path)
        x, y, images = judged_images(run.comparison, data_dir)
        ball = {"eps": info.eps, "norm": info.norm, "bounds": (0.0, 1.0)}
        began = time.process_time()
        state = state_dir / f"{name}-{digest[:12]}"
        found = run_autoattack(network, x, y, batch_size=250, state_path=state, **ball)
        seconds = time.process_time() - began
        report = masking_report(network, x[:FOR_MASKING], y[:FOR_MASKING], **ball)
        right = int(found.robust.sum())
        low, high = wilson_interval(right, len(x))
        entry = {
            "sha256": digest,
            "method": run.method,
            "eps": info.eps,
            "norm": info.norm,
            "images": images,
            "clean": found.accuracies["clean"],
            "autoattack": found.accuracy,
            "low": low,
            "high": high,
            "after": found.accuracies,
            "flags": found.flags,
            "backend": found.backend,
            "core_seconds": round(seconds),
            "masking": {check.name: [check.verdict, check.found] for check in report.checks},
        }
        # Other processes may have written meanwhile.
        measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
        measured[name] = entry
        text = json.dumps(dict(sorted(measured.items())), indent=1)
        write_atomically(MEASURED, text + "\n")
        failed = [check.name for check in report.checks if check.verdict == "fail"]
        typer.echo(
            f"{name}: clean {100 * entry['clean']:.1f}, AutoAttack {100 * found.accuracy:.1f} "
            f"({100 * low:.1f} to {100 * high:.1f}), {len(x)} images, {seconds:.0f} s of one core; "
            f"masking: {', '.join(failed) or 'no check fails'}"
        )


if __name__ == "__main__":
    typer.run(main)
