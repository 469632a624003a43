"""The runs of a comparison: each is trained, judged, and kept as one JSON file."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from art_lfr import __version__
from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.art.quiet import quiet
from art_lfr.comparison import judging, methods
from art_lfr.comparison.plan import RUNS, Comparison, Run
from art_lfr.core.arguments import Array
from art_lfr.core.machine import describe_machine
from art_lfr.core.processes import Processes
from art_lfr.core.progress import bar, passes_of
from art_lfr.core.randomness import RandomState, preserved_random_state, seed_global_generators
from art_lfr.errors import TrainingError, UsageError
from art_lfr.storage.description import Description, Network, array
from art_lfr.storage.files import held, write_atomically
from art_lfr.storage.identity import Identity
from art_lfr.storage.records import read_record, write_record
from art_lfr.storage.tensor_files import LAST, load_run, load_safely, to_plain
from art_lfr.training.averaging import copied_state, put_state, tensors_of
from art_lfr.training.scheduling import Schedule

CPU = torch.device("cpu")
STATE, TIMES, STOPPED, WEIGHTS = "epochs.pt", "times.json", "stopped.txt", "weights.pt"
IDENTITY = "identity.json"
# (name, seed, classes) -> network
Factory: TypeAlias = Callable[[str, int, int], nn.Module]


class Times:
    """Seconds after each epoch: of one core's work, and by the clock; kept in a file.

    A comparison at equal time uses the seconds of one core: on a shared machine the clock also
    counts the waiting.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / TIMES
        self.epochs: list[dict[str, float]] = []
        if self._path.exists():
            self.epochs = read_record(self._path)["epochs"]
        self._start()

    def _start(self) -> None:
        self._cpu, self._clock = time.process_time(), time.perf_counter()

    def cut(self, epoch: int) -> None:
        """Forget what came after this epoch: it is trained again.

        Raises ValueError where the file ends earlier, because it is not that of the checkpoint.
        """
        self.epochs = [times for times in self.epochs if times["epoch"] <= epoch]
        reached = int(self.epochs[-1]["epoch"]) if self.epochs else 0
        if reached != epoch:
            raise UsageError(
                f"{self._path} reaches epoch {reached} where the training is at {epoch}; allowed: "
                f"the same (delete {self._path.parent} to train again)"
            )
        self._start()

    def tick(self, epoch: int) -> None:
        """An epoch, counted from 1, has ended."""
        before = self.epochs[-1] if self.epochs else {"cpu_seconds": 0.0, "seconds": 0.0}
        self.epochs.append(
            {
                "epoch": epoch,
                "cpu_seconds": before["cpu_seconds"] + time.process_time() - self._cpu,
                "seconds": before["seconds"] + time.perf_counter() - self._clock,
            }
        )
        write_record(self._path, {"epochs": self.epochs})
        self._start()


def train(
    run: Run, make: Callable[[], nn.Module], x: Array, y: Array, classes: int, directory: Path
) -> tuple[PyTorchClassifier, list[dict[str, float]]]:
    """Train the run's network, or what is left of it; the classifier and the times of its epochs.

    `directory` keeps the state after each epoch, and snapshots of the weights where the comparison
    asks for them (`epoch-<n>.pt`). The global random state is left as found. Where LFR's
    trainer stops, the run ends with the weights that the trainer returns, and the reason is in
    `stopped.txt`: a run that diverges is a result of the comparison.
    """
    directory.mkdir(parents=True, exist_ok=True)
    classifier = methods.make_classifier(make(), run, x, classes)
    times = Times(directory)
    batches = run.settings["epochs"] * math.ceil(len(x) / run.settings["batch_size"])
    shown = bar(f"{run.about}: training", shown=True, total=batches, unit="batch")
    with preserved_random_state(CPU), shown, quiet():
        classifier.optimizer.register_step_post_hook(lambda *_: shown.update())
        if run.settings["kind"] == "lfr":
            _train_lfr(run, classifier, x, y, directory, times)
        else:
            _train_art(run, classifier, make, x, y, directory, times)
    return classifier, times.epochs


def _train_lfr(
    run: Run, classifier: PyTorchClassifier, x: Array, y: Array, directory: Path, times: Times
) -> None:
    trainer = methods.lfr_trainer(run, classifier)
    last = directory / LAST
    times.cut(len(load_run(last)["history"]) if last.exists() else 0)

    def end(record: dict[str, float]) -> None:
        times.tick(int(record["epoch"]))
        _snapshot(run, classifier, int(record["epoch"]), directory)

    try:
        trainer.fit(
            x,
            y,
            batch_size=run.settings["batch_size"],
            nb_epochs=run.settings["epochs"],
            scheduler=methods.one_cycle(run, classifier.optimizer, len(x)),
            scheduler_interval="batch",
            checkpoint_dir=directory,
            resume=True,
            callback=end,
        )
    except TrainingError as error:
        if not times.epochs:
            times.tick(0)
        write_atomically(directory / STOPPED, f"{error}\n")


def _train_art(
    run: Run,
    classifier: PyTorchClassifier,
    make: Callable[[], nn.Module],
    x: Array,
    y: Array,
    directory: Path,
    times: Times,
) -> None:
    optimizer, state = classifier.optimizer, directory / STATE
    schedule = Schedule(methods.one_cycle(run, optimizer, len(x)), "batch")
    # ART's trainers step a scheduler once an epoch, if at all.
    optimizer.register_step_post_hook(lambda *_: schedule.after_batch())
    methods.clip_gradients(run, optimizer)
    seed_global_generators(run.seed)
    train_epochs, attack = methods.art_epochs(run, classifier, make, x, y)
    done, last = 0, int(run.settings["epochs"])
    if state.exists():
        content = load_safely(state)
        done = int(content["epoch"])
        put_state(classifier.model, content["weights"])
        optimizer.load_state_dict(content["optimizer"])
        schedule.load(content["schedule"])
        RandomState.from_plain(content["random"], CPU).restore()
    times.cut(done)
    batches = math.ceil(len(x) / run.settings["batch_size"])
    warmup = methods.Warmup(attack, run.settings.get("warmup", 0.0) * batches, done * batches)
    optimizer.register_step_post_hook(lambda *_: warmup.after_batch())
    # ART's FBF has a learning rate of its own, over the epochs of one call.
    chunk = last if run.settings["kind"] == "fbf" else 1
    while done < last:
        train_epochs(done, chunk)
        done += chunk
        times.tick(done)
        _snapshot(run, classifier, done, directory)
        content = {
            "epoch": done,
            "weights": copied_state(classifier.model),
            "optimizer": to_plain(optimizer.state_dict(), "optimizer"),
            "schedule": schedule.state(),
            "random": RandomState.capture(CPU).to_plain(),
        }
        write_atomically(state, partial(torch.save, content))


def _snapshot(run: Run, classifier: PyTorchClassifier, epoch: int, directory: Path) -> None:
    every = run.comparison.snapshots
    if every is not None and (epoch % every == 0 or epoch == run.settings["epochs"]):
        save_weights(classifier.model.network, directory / f"epoch-{epoch}.pt")


def save_weights(model: nn.Module, path: Path) -> None:
    """A state dict, atomically."""
    weights = {name: tensor.cpu() for name, tensor in tensors_of(model).items()}
    write_atomically(path, partial(torch.save, weights))


def result_path(run: Run, directory: Path) -> Path:
    """Where a run's accuracies lie."""
    return directory / run.comparison.name / f"{run.key}.json"


def masking_path(run: Run, directory: Path) -> Path:
    """Where a run's masking report lies: beside, so that either can be made without the other."""
    return directory / run.comparison.name / f"masking-{run.masking_key}.json"


def _is_done(run: Run, directory: Path) -> bool:
    paths = [result_path(run, directory)]
    if run.comparison.masking_images:
        paths.append(masking_path(run, directory))
    return all(path.exists() for path in paths)


def run_all(
    comparison: Comparison,
    directory: Path,
    *,
    factory: Factory,
    data_dir: Path = Path(),
    only: str = "",
    tell: Callable[[str], object] = print,
) -> None:
    """Do every run that has no result yet, those of the methods whose name contains `only`.

    A relative .npz file is sought in `data_dir`. `factory` makes a network from its name, a seed
    and the number of classes. Weights and unfinished trainings stay in `directory`, so that a
    killed comparison goes on where it was, and a finished training is judged anew without being
    repeated. Several processes may share the directory: each run is done by one of them.
    """
    runs = [run for run in comparison.runs() if only in run.method]
    todo = [run for run in runs if not _is_done(run, directory)]
    Processes().check_alone("art-lfr compare")
    for run in {run.method: run for run in todo}.values():  # before hours of training
        methods.check_method(run)
    tell(f"{comparison.name}: {len(runs) - len(todo)} of {len(runs)} runs are done")
    _check_finished(comparison, runs, directory, data_dir, factory, tell)
    data: dict[int, judging.Split] = {}
    began, done = time.perf_counter(), 0
    for number, run in enumerate(todo, 1):
        about = f"{number}/{len(todo)} {run.about}"
        home = _home(run, directory)
        home.mkdir(parents=True, exist_ok=True)
        # Until the block ends or this process dies, no other may do the run.
        with held(home / "lock") as mine:
            if not mine:
                tell(f"{about}: at work in another process")
                continue
            if _is_done(run, directory):  # by another process, since the list was made
                continue
            if run.split not in data:
                data = {run.split: judging.load_split(comparison, run.split, data_dir)}
            result = run_one(run, data[run.split], directory, factory)
        parts = [f"{k} {100 * result['accuracy'][k]:.1f}" for k in ("clean", "worst case")]
        parts.append(f"{result['times'][-1]['cpu_seconds']:.1f} s of one core")
        parts += [f"training stopped: {result['stopped']}"] if "stopped" in result else []
        done, left = done + 1, len(todo) - number
        if left:
            seconds = (time.perf_counter() - began) / done * left
            needed = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
            parts.append(f"about {needed} for {left} more")
        tell(f"{about}: {', '.join(parts)}")


def _check_finished(
    comparison: Comparison,
    runs: list[Run],
    directory: Path,
    data_dir: Path,
    factory: Factory,
    tell: Callable[[str], object],
) -> None:
    """Raise ValueError where finished runs had other data or another network of the same name.

    Only their table is wanted, where the data is not here any more: then that is told.
    """
    for split in dict.fromkeys(run.split for run in runs):
        finished = [r for r in runs if r.split == split and result_path(r, directory).exists()]
        if not finished:
            continue
        try:
            data = judging.load_split(comparison, split, data_dir)
        except (OSError, UsageError) as error:
            tell(f"{comparison.name}: finished runs are taken unchecked, without data: {error}")
            continue
        for run in finished:
            digest = read_result(run, directory)["data"]["digest"]
            if digest != data.digest:
                raise UsageError(
                    f"data {comparison.data!r} has the digest {data.digest}, and the finished run "
                    f"{run.method!r}, seed {run.seed}, has {digest}; allowed: the same data for "
                    "all runs of a comparison, or another output folder"
                )
            if (_home(run, directory) / IDENTITY).exists():
                _check_identity(run, data, directory, _maker(run, data, factory))


def _maker(run: Run, split: judging.Split, factory: Factory) -> Callable[[], nn.Module]:
    """What makes the network of a run, always with the same first weights."""
    return lambda: factory(run.settings["model"], run.seed, _classes(split))


def _classes(split: judging.Split) -> int:
    return int(split.y_train.max()) + 1


def _check_identity(
    run: Run, split: judging.Split, directory: Path, make: Callable[[], nn.Module]
) -> None:
    """Raise ValueError where the training of the run began with other things, which it names.

    At its beginning they are written beside its state.
    """
    with preserved_random_state(CPU):
        classifier = methods.make_classifier(make(), run, split.x_train, _classes(split))
    identity = Identity(
        {
            "network": Network(classifier.model),
            **ClassifierAdapter(classifier).parts(),
            "optimizer": classifier.optimizer,
            "settings": run.settings,
        },
        Description({"network": classifier.model}),
        plain={"training images": array(split.x_train), "training labels": array(split.y_train)},
    )
    home = _home(run, directory)
    if (path := home / IDENTITY).exists():
        where = f"the run {run.method!r}, seed {run.seed}, in {home}"
        identity.check(read_record(path), where, "the same, or another output folder")
    elif found := [name for name in (STATE, LAST, WEIGHTS) if (home / name).exists()]:
        raise UsageError(
            f"{home} has {found[0]} and no {IDENTITY} that says of which training; allowed: "
            "another output folder"
        )
    else:
        write_record(path, identity.parts)


def _home(run: Run, directory: Path) -> Path:
    """Where the training of a run keeps its state and its weights."""
    return directory / RUNS / run.training_key


def run_one(run: Run, split: judging.Split, directory: Path, factory: Factory) -> dict[str, Any]:
    """Train (unless its weights are there) and judge one network; what is written of it."""
    home, classes, make = _home(run, directory), _classes(split), _maker(run, split, factory)
    home.mkdir(parents=True, exist_ok=True)
    _check_identity(run, split, directory, make)
    finished = home / WEIGHTS
    if finished.exists():
        content = load_safely(finished)
        classifier = methods.make_classifier(make(), run, split.x_train, classes)
        classifier.model.network.load_state_dict(content)
        times = read_record(home / TIMES)["epochs"]
    else:
        classifier, times = train(run, make, split.x_train, split.y_train, classes, home)
        save_weights(classifier.model.network, finished)
        for state in (STATE, LAST):
            (home / state).unlink(missing_ok=True)
    path, masking = result_path(run, directory), masking_path(run, directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    with passes_of(classifier.model, f"{run.about}: judging", shown=True):
        if not path.exists():
            result = _result(run, classifier, split, home, times)
            write_record(path, result)
        if run.comparison.masking_images and not masking.exists():
            write_record(masking, judging.verdicts(classifier, split, run.comparison))
    return read_result(run, directory)


def read_result(run: Run, directory: Path) -> dict[str, Any]:
    """A finished run's result, with its masking report where there is one.

    Under the method's name in the plan: the name may have changed since the run was made.
    """
    result = read_record(result_path(run, directory))
    result["method"] = run.method
    if (path := masking_path(run, directory)).exists():
        result["masking"] = read_record(path)
    return result


def _result(
    run: Run,
    classifier: PyTorchClassifier,
    split: judging.Split,
    home: Path,
    times: list[dict[str, float]],
) -> dict[str, Any]:
    """Accuracies, flatness, times, and what is needed to repeat them, as JSON types."""
    c = run.comparison
    result = {
        "key": run.key,
        "comparison": c.name,
        "method": run.method,
        "seed": run.seed,
        "split": run.split,
        "settings": run.settings,
        "eps": c.eps,
        "norm": str(c.norm),
        "data": {"name": c.data, "digest": split.digest, "train": len(split.x_train)},
        "judged": {"part": c.part, "images": [split.first, split.first + len(split.x)]},
        "times": times,
        **judging.figures(judging.judge(classifier, split, c)),
        "parameters": sum(p.numel() for p in classifier.model.parameters()),
        "versions": {
            "art_lfr": __version__,
            **{n: version(n) for n in ("torch", "adversarial-robustness-toolbox", "numpy")},
        },
        "machine": describe_machine(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if (stopped := home / STOPPED).exists():
        result["stopped"] = stopped.read_text().strip()
    if c.snapshots is not None:
        result["snapshots"] = judging.judge_snapshots(classifier, split, c, home, result)
    return result


def take_known(comparison: Comparison, known: Path, directory: Path) -> int:
    """Copy the runs of `known`/NAME.json into `directory` as finished; returns how many.

    Copied are runs of the plan, with the same settings, data and attacks, that have no result in
    `directory` yet. A run without the masking report that the plan asks for is not copied, because
    the report has to be on the same weights. Raises ValueError for a file of another kind.
    """
    path = known / f"{comparison.name}.json"
    if not path.is_file():
        return 0
    try:
        results = {result["key"]: result for result in json.loads(path.read_text())}
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"known file {str(path)!r} is {error!r}; allowed: the NAME.json of a comparison"
        ) from error
    taken = 0
    for run in comparison.runs():
        target = result_path(run, directory)
        if run.key not in results or target.exists():
            continue
        result = dict(results[run.key])
        masking = result.pop("masking", None)
        if comparison.masking_images and masking is None:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if masking is not None:
            write_record(masking_path(run, directory), masking)
        write_record(target, result)
        taken += 1
    return taken
