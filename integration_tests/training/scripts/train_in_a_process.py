"""One of the processes of test_processes.py: trains as its arguments say, and writes the weights.

train_in_a_process.py OUTPUT EPOCHS {fit,loader} [--directory D] [--norm-layers] [--largest N]
    [--perturb] [--warm] [--moved] [--more] [--different] [--fail] [--nan RANK] [--count N]
"""

from __future__ import annotations

import argparse
import atexit
import os
from pathlib import Path

import torch
from art.attacks.evasion import FastGradientMethod
from art.estimators.classification import PyTorchClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.core.processes import Processes
from art_lfr.data import Compose, RandomCrop, digits, random_flip

parser = argparse.ArgumentParser()
parser.add_argument("output", type=Path)
parser.add_argument("epochs", type=int)
parser.add_argument("source", choices=("fit", "loader"))
parser.add_argument("--directory", type=Path)
parser.add_argument("--norm-layers", action="store_true")
parser.add_argument("--largest", type=int)
parser.add_argument("--perturb", action="store_true")
parser.add_argument("--warm", action="store_true")
parser.add_argument("--moved", action="store_true")
parser.add_argument("--fail", action="store_true")
parser.add_argument("--nan", type=int)
parser.add_argument("--fail-late", type=int)
parser.add_argument("--more", action="store_true")
parser.add_argument("--different", action="store_true")
parser.add_argument("--count", type=int, default=640)
arguments = parser.parse_args()


def end_with_an_error_where_threads_go_on() -> None:
    """One of gloo's that outlives the interpreter aborts the process, now and then."""
    tasks = Path("/proc/self/task")
    names = [path.read_text().strip() for path in tasks.glob("*/comm")] if tasks.exists() else []
    if any("gloo" in name for name in names):
        print("threads that go on after the training:", *names, flush=True)
        os._exit(70)


atexit.register(end_with_an_error_where_threads_go_on)  # the first to register is the last to run
torch.set_num_threads(1)
processes = Processes()
# Different first weights: those of the main process count.
torch.manual_seed(processes.rank)
model = nn.Sequential(
    nn.Flatten(),
    nn.Linear(64, 32),
    nn.BatchNorm1d(32) if arguments.norm_layers else nn.Identity(),
    nn.ReLU(),
    nn.Linear(32, 10),
)
model = model.float() if arguments.more else model.double()  # ART attacks in float32
classifier = PyTorchClassifier(
    model,
    nn.CrossEntropyLoss(),
    (1, 8, 8),
    10,
    optimizer=torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
    clip_values=(0.0, 1.0),
    device_type="cpu",
)
calls = []


def spoil(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    """The same hook in all processes, which are to have the same network; it acts in one."""
    calls.append(1)
    if arguments.fail_late == processes.rank and len(calls) > 100:
        raise RuntimeError("a process that is not the main one fails")
    return output * torch.nan if arguments.nan == processes.rank else output


if arguments.fail_late is not None or arguments.nan is not None:
    model[1].register_forward_hook(spoil)
data = digits(processes.rank if arguments.different else 0)
x, y = data.x_train[: arguments.count], data.y_train[: arguments.count]


more = {}
if arguments.more:  # an average of the weights, the best ones, an attack on some of the clean term
    attack = FastGradientMethod(classifier, eps=0.1, batch_size=99)
    more = {"attack": attack, "ratio": 0.3, "ema_decay": 0.9}
    more["best_metric"] = "validation_loss"


def after_epoch(record: dict[str, float]) -> None:
    if arguments.fail and record["epoch"] == 2:
        raise RuntimeError("this process fails")


trainer = AdversarialTrainerLFRPyTorch(
    classifier,
    eps=0.1,
    max_iter=3,
    verbose=False,
    max_physical_batch_size=arguments.largest,
    weight_perturbation=0.01 if arguments.perturb else None,
    warm_start=arguments.warm,
    augment=Compose(RandomCrop(1), random_flip) if arguments.moved else None,
    **more,
)
keywords = {
    "nb_epochs": arguments.epochs,
    "validation_data": (data.x_validation, data.y_validation),
    "checkpoint_dir": arguments.directory,
    "resume": arguments.directory is not None,
    "callback": after_epoch,
}
if arguments.source == "fit":
    trainer.fit(x, y, batch_size=64, **keywords)
else:
    places = [torch.arange(len(x))] if arguments.warm else []
    dataset = TensorDataset(torch.tensor(x), torch.tensor(y), *places)
    trainer.fit_loader(DataLoader(dataset, batch_size=64, shuffle=True), **keywords)
result = {"weights": model.state_dict(), "history": list(trainer.history)}
torch.save(result, arguments.output.with_suffix(f".{processes.rank}of{processes.size}"))
