"""One of the processes of test_processes.py: judges the digits network as its arguments say.

judge_in_a_process.py OUTPUT {table,autoattack} [--state-dir D] [--different] [--raise-at N]
    [--end-at N]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from art_lfr.autoattack import suite
from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Box
from art_lfr.core.processes import Processes
from art_lfr.core.settings import LFRSettings
from art_lfr.data import digits
from art_lfr.evaluation import evaluate
from art_lfr.models import load_network
from art_lfr.training.monitoring import Monitor

parser = argparse.ArgumentParser()
parser.add_argument("output", type=Path)
parser.add_argument("kind", choices=("table", "autoattack"))
parser.add_argument("--state-dir", type=Path)
parser.add_argument("--different", action="store_true")
parser.add_argument("--raise-at", type=int)
parser.add_argument("--end-at", type=int)
arguments = parser.parse_args()

NETWORKS = Path(__file__).parents[3] / "networks"
EPS = 0.1
torch.set_num_threads(1)
processes = Processes()
network = load_network(NETWORKS / "digits-0.1.safetensors")
data = digits(processes.rank if arguments.different else 0)
count = 45 if arguments.kind == "table" else 24
x, y = data.x_test[:count], data.y_test[:count]
attacked = []
perturb = suite.perturb


def interrupted(*batch: Any) -> Tensor:
    """AutoAttack's attack on a batch; in the last process one of them is the last."""
    attacked.append(1)
    if processes.rank == processes.size - 1:
        if arguments.raise_at == len(attacked):
            raise RuntimeError("an attack fails in the last process")
        if arguments.end_at == len(attacked):
            os._exit(9)
    return perturb(*batch)


suite.perturb = interrupted  # no part of what makes a run the same, as the model would be


class Noisy(nn.Module):
    """Logits with noise from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        return logits + 0.5 * torch.randn_like(logits)


def brightened(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Draws from batch to batch, so that no batch can be left out."""
    return (x + EPS * torch.rand_like(x)).clamp(0, 1)


def plain(found: Any) -> dict[str, Any]:
    """All of an evaluation but the times."""
    kept = found.to_dict()
    for row in kept["rows"]:
        row.pop("seconds")
        row["details"].pop("seconds", None)
    return kept


result = {}
told = []
keywords = {"eps": EPS, "batch_size": 7, "callback": lambda row: told.append(row.name)}
if arguments.kind == "table":
    examples = arguments.output.with_suffix(f".{processes.size}.npz")
    attacks = ["quick", "FGSM", "MI-PGD", brightened]
    metrics = ["loss_sensitivity"]
    found = evaluate(
        network, x, y, attacks=attacks, metrics=metrics, save_adversarial=examples, **keywords
    )
    result["table"], result["seconds"] = plain(found), [row.seconds for row in found.rows]
    torch.manual_seed(processes.rank)  # that of the main process counts
    noisy = evaluate(Noisy(), x, y, attacks="PGD-40", **keywords)
    result["noisy"] = plain(noisy)
    monitor = Monitor("validation", torch.tensor(x), torch.tensor(y), 40, 7, 0)
    box = Box.from_bounds((0.0, 1.0), monitor.x)
    metrics, labels = monitor.measure(network, Criterion(), box, LFRSettings(eps=EPS), processes)
    result["monitor"], result["labels"] = metrics, labels
else:
    found = evaluate(network, x, y, attacks="autoattack", state_dir=arguments.state_dir, **keywords)
    result["table"] = plain(found)
result["told"] = told
torch.save(result, arguments.output.with_suffix(f".{processes.rank}of{processes.size}"))
