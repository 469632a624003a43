"""The networks of `networks/`: taken from the runs of the published tables, and judged again.

    python benchmarks/robustness/shipped.py collect RUNS --data-dir DIRECTORY
    python benchmarks/robustness/shipped.py check --data-dir DIRECTORY

Of each table the network of cold-started LFR with seed 0 on split 0, by that rule, whatever its
accuracy, and beside it, as NAME-at, that of adversarial training, as NAME-warm that of LFR with
warm starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_lfr.comparison.judging import data_file, judge, load_split
from art_lfr.comparison.methods import make_classifier
from art_lfr.comparison.plan import Run, read_plan
from art_lfr.comparison.runner import WEIGHTS, read_result
from art_lfr.core.names import parse_norm
from art_lfr.models import NetworkInfo, load_network, make_network, network_info, save_network
from art_lfr.storage.tensor_files import load_weights

PLANS = Path(__file__).parent
NETWORKS = PLANS.parents[1] / "networks"
# Network: its plan, comparison and method. LFR as it was tuned (with the gradient clipped, but for
# mnist and cifar10), and the better adversarial training beside it, clipped alike, with the epochs
# that LFR takes where a table has those; on digits and MNIST warm-started LFR too, for which MNIST
# in l-inf has a twin of its own: the adversarial training that is best there.
ROWS = {
    "digits-0.1": ("digits.yaml", "digits-0.1", "LFR, clipped"),
    "digits-0.1-at": ("digits.yaml", "digits-0.1", "AT at eps + h, clipped"),
    "digits-0.1-warm": ("digits.yaml", "digits-0.1", "LFR, warm-started"),
    "digits-0.2": ("digits.yaml", "digits-0.2", "LFR, clipped, lr 0.5"),
    "digits-0.2-at": ("digits.yaml", "digits-0.2", "AT at eps + h, clipped, lr 0.3"),
    "digits-0.2-warm": ("digits.yaml", "digits-0.2", "LFR, warm-started"),
    "digits-l2": ("digits.yaml", "digits-l2", "LFR, clipped"),
    "digits-l2-at": ("digits.yaml", "digits-l2", "AT at eps + h, clipped"),
    "digits-l2-warm": ("digits.yaml", "digits-l2", "LFR, warm-started"),
    "mnist": ("mnist.yaml", "mnist", "LFR"),
    "mnist-at": ("mnist.yaml", "mnist", "AT, lr 0.05, 6 epochs"),
    "mnist-warm": ("mnist.yaml", "mnist", "LFR, warm-started"),
    "mnist-warm-at": ("mnist.yaml", "mnist", "AT at eps + h, warm-started, lr 0.2"),
    "mnist-l2": ("mnist-l2.yaml", "mnist-l2", "LFR"),
    "mnist-l2-at": ("mnist-l2.yaml", "mnist-l2", "AT at eps + h"),
    "mnist-l2-warm": ("mnist-l2.yaml", "mnist-l2", "LFR, warm-started"),
    "mnist-paper-cnn": ("mnist-paper-cnn.yaml", "mnist-paper-cnn", "LFR, clipped"),
    "mnist-paper-cnn-at": ("mnist-paper-cnn.yaml", "mnist-paper-cnn", "AT at eps + h, clipped"),
    "cifar10": ("cifar10.yaml", "cifar10", "LFR"),
    "cifar10-at": ("cifar10.yaml", "cifar10", "AT at eps + h"),
}
# In points: attacks may differ by an image where another machine rounds otherwise.
TOLERANCE = 0.5

app = typer.Typer(add_completion=False)


def runs(only: str, data_dir: Path) -> list[tuple[str, str, Run]]:
    """Name, plan and run of each network whose name contains `only`; their data are there."""
    found = []
    for name, (plan, table, method) in ROWS.items():
        comparison = next(c for c in read_plan(PLANS / plan) if c.name == table)
        for run in comparison.runs():
            if (run.method, run.seed, run.split) == (method, 0, 0) and only in name:
                found.append((name, plan, run))
    if not found:
        raise typer.BadParameter(f"--only is {only!r}; allowed: a part of {', '.join(ROWS)}")
    files = {data_file(run.comparison, data_dir) for _, _, run in found} - {None}
    if absent := sorted(path.name for path in files if path and not path.is_file()):
        raise typer.BadParameter(
            f"--data-dir is {str(data_dir)!r}, which lacks {', '.join(absent)}; allowed: a folder "
            "with these files"
        )
    return found


@app.command()
def collect(
    directory: Path,
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plans lie.")] = Path(),
    only: Annotated[str, typer.Option(help="Networks whose name contains this.")] = "",
) -> None:
    """Take weights from the output folder of the comparisons, with what is known of them."""
    NETWORKS.mkdir(exist_ok=True)
    for name, plan, run in runs(only, data_dir):
        network = make_network(run.settings["model"])
        load_weights(network, directory / "trainings" / run.training_key / WEIGHTS)
        split = load_split(run.comparison, run.split, data_dir)
        info = NetworkInfo(
            model=run.settings["model"],
            classes=10,
            input_shape=split.x_train.shape[1:],
            eps=run.comparison.eps,
            norm=f"{parse_norm(run.comparison.norm):g}",
            bounds=(0.0, 1.0),
            data=Path(run.comparison.data).stem,
            settings={"plan": plan, "method": run.method, **run.settings},
            metrics=read_result(run, directory)["accuracy"],
        )
        typer.echo(save_network(NETWORKS / f"{name}.safetensors", network, info))


@app.command()
def check(
    data_dir: Annotated[Path, typer.Option(help="Where .npz files of the plans lie.")] = Path(),
    only: Annotated[str, typer.Option(help="Networks whose name contains this.")] = "",
) -> None:
    """Attack each network anew; status 1 where an accuracy differs from the published one."""
    differ = False
    for name, _, run in runs(only, data_dir):
        split = load_split(run.comparison, run.split, data_dir)
        path = NETWORKS / f"{name}.safetensors"
        info = network_info(path)
        classifier = make_classifier(load_network(path), run, split.x_train, info.classes)
        typer.echo(f"{name}: attacks on {len(split.x)} images", err=True)
        for row in judge(classifier, split, run.comparison, verbose=True).rows:
            published = info.metrics[row.name]
            typer.echo(
                f"{name} {row.name}: {100 * row.accuracy:.1f}, published {100 * published:.1f}"
            )
            differ |= abs(row.accuracy - published) > TOLERANCE / 100
    if differ:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
