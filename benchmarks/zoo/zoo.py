"""One LFR step on every architecture of RobustBench's zoo, each in a process of its own.

    python benchmarks/zoo/zoo.py run
    python benchmarks/zoo/zoo.py report

Random weights (nothing is downloaded), batch 2, one step of
`AdversarialTrainerLFRPyTorch(max_iter=1)` on a classifier made by `to_art`. Entries whose
parameters have the same names and shapes as an earlier one's are the same architecture and size:
they are listed, not run. A line is appended for each entry as it ends, so that a stopped sweep goes
on where it was. `--seconds` and `--gib` stop entries that take more. Needs the extra `robustbench`
and psutil.
"""

import argparse
import hashlib
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results.jsonl"
DATASETS = ("cifar10", "cifar100", "imagenet")
THREATS = ("Linf", "L2")


def zoo():
    """RobustBench's tables, importable once art_lfr.robustbench is."""
    import art_lfr.robustbench  # noqa: F401

    enums = importlib.import_module("robustbench.model_zoo.enums")
    tables = importlib.import_module("robustbench.model_zoo").model_dicts
    return enums.BenchmarkDataset, enums.ThreatModel, tables


def without_downloads():
    """Constructors that fetch weights get none."""
    import timm.models._builder
    import torchvision.models._api
    from torch import nn

    timm.models._builder.load_pretrained = lambda *_, **__: None
    torchvision.models._api.WeightsEnum.get_state_dict = lambda *_, **__: {}
    load = nn.Module.load_state_dict

    def load_or_leave(self, state, *arguments, **keywords):
        return load(self, state, *arguments, **keywords) if state else None

    nn.Module.load_state_dict = load_or_leave


def one(dataset, threat, name, known):
    """Build one model and take one step; what came of it."""
    import resource

    import numpy as np
    import torch

    torch.set_num_threads(1)
    without_downloads()
    BenchmarkDataset, ThreatModel, model_dicts = zoo()

    from art_lfr import AdversarialTrainerLFRPyTorch
    from art_lfr.robustbench import to_art

    torch.manual_seed(0)
    start = time.perf_counter()
    model = model_dicts[BenchmarkDataset(dataset)][ThreatModel(threat)][name]["model"]()
    shapes = [(key, tuple(value.shape)) for key, value in model.state_dict().items()]
    signature = hashlib.sha256(repr((type(model).__name__, shapes)).encode()).hexdigest()[:16]
    about = {
        "class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "signature": signature,
        "seconds_to_build": time.perf_counter() - start,
    }
    if signature in known:
        return {**about, "status": "same", "same_as": known[signature]}
    classifier = to_art(model, dataset=dataset)
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=4 / 255, max_iter=1, warmup_epochs=0)
    x = np.random.default_rng(0).random((2, *classifier.input_shape)).astype(np.float32)
    parameter = next(p for p in model.parameters() if p.requires_grad)
    before = parameter.detach().clone()
    start = time.perf_counter()
    trainer.fit(x, np.arange(2), nb_epochs=1, batch_size=2)
    record = trainer.history[-1]
    return {
        **about,
        "status": "ok" if not torch.equal(before, parameter) else "unchanged weights",
        "seconds": time.perf_counter() - start,
        "clean_loss": record["clean_loss"],
        "flatness": record["flatness"],
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def attempt(key, known, seconds, gib):
    """Run one entry in a process; its record, also where it fails or is stopped."""
    import psutil

    arguments = ["one", *key, "--known", json.dumps(known)]
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    watched, start, stopped = psutil.Process(process.pid), time.monotonic(), None
    while True:
        try:
            out, err = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            used = watched.memory_info().rss / 2**30
            if seconds is not None and time.monotonic() - start > seconds:
                stopped = f"longer than {seconds} s"
            elif gib is not None and used > gib:
                stopped = f"more than {gib} GiB"
            if stopped is not None:
                process.kill()
    if stopped is not None:
        return {"status": "stopped", "reason": stopped}
    lines = out.decode().splitlines()
    if process.returncode == 0 and lines:
        return json.loads(lines[-1])
    reason = err.decode(errors="replace").strip().splitlines()[-1:] or [
        f"exit {process.returncode}"
    ]
    return {"status": "failed", "reason": reason[0][:300]}


def run(output, seconds, gib, datasets):
    """Sweep the zoo, going on after the entries that the file has."""
    BenchmarkDataset, ThreatModel, model_dicts = zoo()

    done = read(output) if output.exists() else []
    ready = {(r["dataset"], r["threat_model"], r["name"]) for r in done}
    known = {
        r["signature"]: r["name"] for r in done if r["status"] not in ("same", "failed", "stopped")
    }
    for dataset in datasets:
        for threat in THREATS:
            for name in model_dicts[BenchmarkDataset(dataset)].get(ThreatModel(threat), {}):
                key = (dataset, threat, name)
                if key in ready:
                    continue
                record = dict(zip(("dataset", "threat_model", "name"), key, strict=True))
                record |= attempt(key, known, seconds, gib)
                if record["status"] == "ok":
                    known[record["signature"]] = name
                with output.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                print(f"{'/'.join(key)}: {record['status']} {record.get('reason', '')}", flush=True)


def read(path):
    """The records; a half-written last line of a killed sweep is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"left out: {line[:60]}", file=sys.stderr)
    return records


def report(path):
    """A table by outcome, and each entry that did not end well with its reason."""
    import pandas

    frame = pandas.DataFrame(read(path))
    print(
        frame.groupby(["dataset", "threat_model", "status"])
        .size()
        .unstack(fill_value=0)
        .to_string()
    )
    bad = frame[~frame.status.isin(["ok", "same"])]
    for row in bad.fillna("").itertuples():
        entry = f"{row.dataset} {row.threat_model} {row.name}"
        print(f"- {entry}: {row.status} {getattr(row, 'reason', '')}")
    BenchmarkDataset, ThreatModel, model_dicts = zoo()
    tried = set(zip(frame.dataset, frame.threat_model, frame["name"], strict=True))
    for dataset in DATASETS:
        for threat in THREATS:
            names = model_dicts[BenchmarkDataset(dataset)].get(ThreatModel(threat), {})
            left = [name for name in names if (dataset, threat, name) not in tried]
            if left:
                print(f"- {dataset} {threat}, not tried yet ({len(left)}): {', '.join(left)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sweep = commands.add_parser("run")
    sweep.add_argument("--output", type=Path, default=RESULTS)
    sweep.add_argument("--seconds", type=float, help="an entry may take; default: any")
    sweep.add_argument("--gib", type=float, help="of memory an entry may take; default: any")
    sweep.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    table = commands.add_parser("report")
    table.add_argument("file", type=Path, nargs="?", default=RESULTS)
    single = commands.add_parser("one")
    single.add_argument("key", nargs=3)
    single.add_argument("--known", type=json.loads, default={})
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.output, arguments.seconds, arguments.gib, arguments.datasets)
    elif arguments.command == "report":
        report(arguments.file)
    else:
        print(json.dumps(one(*arguments.key, arguments.known)))


if __name__ == "__main__":
    main()
