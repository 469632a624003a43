import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from lfr_testing import printed_by_python, refusal_of
from safetensors.torch import load_file
from typer.testing import CliRunner

from art_lfr.cli import app, inputs, main
from art_lfr.cli.known import settings_of
from art_lfr.demo.run import run_demo
from art_lfr.errors import TrainingError
from art_lfr.models import digits_cnn
from art_lfr.training.loop import TrainingLoop

SCRIPTS = Path(__file__).with_name("scripts")


@pytest.fixture
def folder(user_folder):
    """A current directory with a module of networks and a small .npz file."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (64, 6, 6)).astype(np.uint8)
    y = generator.integers(0, 3, 64)
    x[np.arange(64), y] = 255
    np.savez("mine.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    Path("raising_module.py").write_text("torhc.nn")
    return user_folder


TINY = ["--model", "nets_of_a_user:make", "--data", "mine.npz"]
BALL = [*TINY, "--eps", "0.05"]


def test_help_teaches():
    runner = CliRunner()
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for word in (
        "demo",
        "train",
        "evaluate",
        "masking",
        "flatness",
        "check",
        "local flatness regularization",
    ):
        assert word in result.output
    for command in ("demo", "train", "evaluate", "masking", "flatness", "check"):
        result = runner.invoke(app, [command, "--help"], env={"COLUMNS": "80"})
        assert result.exit_code == 0
        assert f"art-lfr {command}" in result.output
        assert "Example" in result.output
        plain = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
        assert max(map(len, plain.splitlines())) <= 80


def test_train_then_measure(folder, capsys):
    arguments = ["train", *TINY, "--eps", "0.05", "--epochs", "3", "--batch-size", "16"]
    assert main([*arguments, "--output", "a.pt", "--checkpoint-dir", "run"]) == 0
    output = capsys.readouterr().out
    assert "Weights: a.pt" in output
    assert "Training took" in output
    assert "art-lfr evaluate --weights a.pt --data mine.npz --model nets_of_a_user:make" in output
    weights = torch.load(folder / "a.pt", weights_only=True)
    assert weights["1.weight"].shape == (3, 36)
    # The same run again gives the same weights; a finished run, resumed, too.
    assert main([*arguments, "--output", "b.pt"]) == 0
    assert main([*arguments, "--output", "c.pt", "--checkpoint-dir", "run", "--resume"]) == 0
    for other in ("b.pt", "c.pt"):
        again = torch.load(folder / other, weights_only=True)
        assert all(torch.equal(again[name], value) for name, value in weights.items())
    # A cycle of the learning rate cannot be made longer once it has begun.
    longer = [
        *arguments,
        "--epochs",
        "4",
        "--output",
        "e.pt",
        "--checkpoint-dir",
        "run",
        "--resume",
    ]
    assert main(longer) != 0
    assert (
        "error: --epochs is 4, but the run in --checkpoint-dir has 3; allowed: --epochs 3\n"
        in capsys.readouterr().err
    )
    assert not (folder / "e.pt").exists()
    assert main([*arguments, "--output", "d.pt", "--seed", "1"]) == 0
    other = torch.load(folder / "d.pt", weights_only=True)
    assert not torch.equal(other["1.weight"], weights["1.weight"])
    capsys.readouterr()

    measure = ["flatness", *TINY, "--weights", "a.pt", "--eps", "0.05"]
    assert main([*measure, "--output", "f.csv"]) == 0
    output = capsys.readouterr().out
    table = pandas.read_csv(folder / "f.csv")
    assert list(table.columns) == ["index", "label", "flatness"]
    assert len(table) == 20
    assert f"{table.flatness.mean():.4g}" in output
    assert "Nats per unit of x: ||grad l||_q" in output
    assert f"{table.flatness.median():.4g}" in output
    assert max(map(len, output.splitlines())) <= 80
    assert main([*measure, "--output", "f.json", "--split", "train"]) == 0
    records = json.loads((folder / "f.json").read_text())
    assert len(records) == 64
    assert set(records[0]) == {"index", "label", "flatness"}
    assert not list(folder.glob(".*partial"))


SHORT = ["train", *BALL, "--epochs", "2", "--batch-size", "16"]


@pytest.fixture
def trained(folder):
    """The weights that `art-lfr train` leaves after two epochs, with further options."""

    def train(*options):
        assert main([*SHORT, "--force", *options]) == 0
        return load_file("lfr-weights.safetensors")

    return train


@pytest.mark.parametrize(
    "options",
    [
        "--penalty input-gradient",
        "--held-epochs 0",
        "--no-warm-start",
        "--autocast",
        "--optimizer adamw --lr 0.01",
        "--weight-decay 1/10",
        "--augmentation flip",
        "--train 32",
        "--validation 0.25",
        "--lam 1/10",
        "--radius 1/1000",
        "--eps-step 1/1000",
        "--max-grad-norm 1/100",
        "--ema-decay 0.9",
        "--norm L2",
    ],
)
def test_options_reach_the_trainer(trained, options):
    plain, other = trained(), trained(*options.split())
    assert any(not torch.equal(plain[name], other[name]) for name in plain)


@pytest.mark.parametrize(
    "options",
    [
        "--eps 1/20",
        "--norm Linf",
        "--lam none --radius None",
        "--no-autocast --penalty LFR",
        "--optimizer SGD --augmentation none",
        "--train 64",
        pytest.param(
            "--device cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")
        ),
    ],
)
def test_what_is_written_otherwise_is_the_same(trained, options):
    plain, other = trained(), trained(*options.split())
    assert all(torch.equal(plain[name], other[name]) for name in plain)


def test_the_settings_taken_are_said_unless_quiet(folder, capsys):
    assert main(SHORT) == 0
    told = capsys.readouterr().err.splitlines()[0]
    assert told.startswith("mine.npz: nets_of_a_user:make, eps 0.05, norm inf, 2 ascent steps")
    assert told.endswith("(what was not given: the defaults)")
    assert "steps, lam 0.025, radius 0.0125; epochs" in told
    assert main([*SHORT, "--quiet", "--force"]) == 0
    assert capsys.readouterr() == ("Weights: lfr-weights.safetensors (replaced)\n", "")
    assert main([*SHORT, "--force", "--penalty", "adversarial-training"]) == 0
    assert "steps, adversarial-training; epochs" in capsys.readouterr().err.splitlines()[0]


def test_the_command_that_judges_names_a_part_that_is_there(folder, capsys):
    parts = dict(np.load("mine.npz"))
    for name in ("x_test", "y_test"):
        parts.pop(name, None)
    np.savez("mine.npz", **parts)
    assert main(SHORT) == 0
    expected = "validation" if "x_validation" in parts else "train"
    assert f"--split {expected}" in capsys.readouterr().out


def test_a_network_without_weights_is_named(folder, capsys):
    assert main(["flatness", *BALL]) == 0
    told = capsys.readouterr().err
    assert "--weights is missing: judged is what nets_of_a_user:make makes" in told


def test_a_network_is_replaced_only_where_it_is_asked_for(folder, capsys):
    run = [*SHORT, "--checkpoint-dir", "run"]
    assert main(run) == 0
    first = Path("lfr-weights.safetensors").read_bytes()
    capsys.readouterr()
    refusal = refusal_of([*SHORT, "--seed", "1"], capsys)
    assert "--output is 'lfr-weights.safetensors', which is there already" in refusal
    assert "--force" in refusal
    assert Path("lfr-weights.safetensors").read_bytes() == first
    assert main([*run, "--resume"]) == 0
    assert "Weights: lfr-weights.safetensors (replaced)" in capsys.readouterr().out


def test_other_files_that_are_replaced_are_named(folder, capsys):
    assert main([*SHORT, "--output", "a.pt", "--history", "h.csv"]) == 0
    assert "Written: h.csv" in capsys.readouterr().out
    assert main([*SHORT, "--output", "a.pt", "--history", "h.csv", "--force"]) == 0
    assert "Replaced: h.csv" in capsys.readouterr().out
    files = ["--output", "t.csv", "--save-adversarial", "x.npz", "--attacks", "FGSM"]
    for word in ("Written", "Replaced"):
        assert main(["evaluate", *BALL, "--weights", "a.pt", *files]) == 0
        error = capsys.readouterr().err
        assert f"{word}: t.csv" in error
        assert f"{word}: x.npz" in error


def test_a_network_of_one_class_is_written_and_named_a_failure(folder, capsys):
    """Its warnings are messages in the words of the command line."""
    constant = ["--model", "nets_of_a_user:make_broken", "--data", "mine.npz", "--eps", "0.05"]
    assert main(["train", *constant, "--epochs", "2", "--output", "a.pt"]) == 1
    out, err = capsys.readouterr()
    assert "Weights: a.pt" in out
    assert "evaluate" not in out
    assert Path("a.pt").is_file()
    *_, warning, last = err.splitlines()
    assert last == "art-lfr: error: not trained: one class for every image"
    assert warning.startswith("art-lfr: warning: collapse: after epoch 2 the network")
    assert "lower --max-grad-norm (now 1.0)" in warning
    assert "lower --lam (now" in warning
    assert "--warmup-epochs (now 0.667)" in warning
    assert main(["train", *constant, "--epochs", "2", "--output", "b.pt", "--json", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 2
    assert "Weights: b.pt" in err


def test_what_a_stopped_command_keeps(folder, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "fit", stop)
    assert main(SHORT) == 130
    assert "lost: next time give --checkpoint-dir FOLDER, and the same" in capsys.readouterr().err
    assert main([*SHORT, "--checkpoint-dir=run"]) == 130
    assert "interrupted; the same command with --resume goes on" in capsys.readouterr().err


def test_history_best_metric_and_patience(folder, capsys):
    """At a tiny learning rate nothing gets better after the first epoch."""
    best = ["--best-metric", "validation_robust_accuracy,validation_accuracy", "--patience", "2"]
    still = [*SHORT, *best, "--lr", "1e-12", "--epochs", "9", "--validation", "16"]
    assert main([*still, "--history", "h.json", "--json"]) == 0
    records = json.loads((folder / "h.json").read_text())
    printed = json.loads(capsys.readouterr().out)
    assert [pytest.approx(record) for record in printed] == records
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert "validation_robust_accuracy" in records[0]


def test_history_of_a_training_that_fails(folder, capsys, monkeypatch):
    train, calls = TrainingLoop._train_epoch, []

    def fail(loop, *arguments):
        if calls:
            raise TrainingError("the loss is nan")
        calls.append(loop)
        return train(loop, *arguments)

    monkeypatch.setattr(TrainingLoop, "_train_epoch", fail)
    assert main([*SHORT, "--history", "h.csv"]) == 1
    assert "the loss is nan" in capsys.readouterr().err
    assert pandas.read_csv(folder / "h.csv").epoch.tolist() == [1]
    assert not (folder / "lfr-weights.safetensors").exists()
    # One that did not begin leaves the file of another as it is.
    assert main([*SHORT, "--history", "h.csv"]) == 1
    assert pandas.read_csv(folder / "h.csv").epoch.tolist() == [1]


def test_train_on_digits_gives_the_network_of_the_demo(folder, monkeypatch):
    class Trained(Exception):  # noqa: N818
        pass

    networks = []

    def judge(classifier, *arguments, **keywords):
        networks.append(classifier.model)
        if len(networks) == 3:
            raise Trained

    monkeypatch.setattr("art_lfr.demo.run.evaluate", judge)
    with pytest.raises(Trained):
        run_demo(folder / "report", epochs=2, seed=3)
    arguments = ["train", "--data", "digits", "--epochs", "2", "--seed", "3", "--device", "cpu"]
    assert main(arguments) == 0
    weights = load_file("lfr-weights.safetensors")
    of_demo = networks[2].state_dict()
    assert weights.keys() == of_demo.keys()
    assert all(torch.equal(of_demo[name], value) for name, value in weights.items())


def test_a_demo_that_is_repeated_is_not_complete_before_its_end(folder, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("art_lfr.demo.run.evaluate", stop)
    (folder / "report").mkdir()
    (folder / "report" / "results.json").write_text("{}")
    assert main(["demo", "--output", "report", "--epochs", "1"]) == 130
    assert "Replacing the report in" in capsys.readouterr().out
    assert not (folder / "report" / "results.json").exists()


def test_a_network_is_judged_on_the_gpu_where_there_is_one(folder, monkeypatch):
    torch.save(digits_cnn(seed=3).state_dict(), "w.pt")
    monkeypatch.setattr(inputs, "default_device", lambda: torch.device("meta"))  # in its place
    chosen = settings_of(None, Path("w.pt"))
    network, _, x, y, *_ = inputs.judged(chosen, "test", 4)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert (len(x), len(y)) == (4, 4)


def test_check(folder, capsys):
    assert main(["check", *TINY, "--estimator", "exact"]) == 0
    output = capsys.readouterr().out
    assert "Nothing found" in output
    assert "Tried: values and labels of 64 training images" in output
    assert "--estimator exact and --batch-size 128" in output
    assert main(["check", "--model", "nets_of_a_user:make_dropout", "--data", "mine.npz"]) == 0
    output = capsys.readouterr().out
    assert "warning 0 (Dropout)" in output
    assert "fix:" in output
    assert main(["check", "--model", "nets_of_a_user:make_broken", "--data", "mine.npz"]) == 1
    assert "error 1 (Threshold)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["export"], "No such command 'export'; allowed: demo, train"),
        (["evalaute"], "No such command 'evalaute'; did you mean 'evaluate'?"),
        (["train", "--epss", "1"], "No such option --epss; did you mean '--eps'?"),
        (
            ["train", "--channels-last", "none"],
            "--channels-last takes no value, but 'none' follows it; allowed: --channels-last alone",
        ),
        (["evaluate", "--json", "x.json"], "--json alone; a file is named by --output"),
        (
            ["evaluate", "--json", "my file.json"],
            "--json takes no value, but 'my file.json' follows",
        ),
        (["--", "evaluate", "x.json"], "'x.json' belongs to no option"),
        (["evaluate", "--eps", "0.1", "0.1"], "'0.1' belongs to no option"),
        (["evaluate", "x.safetensors"], "'x.safetensors' belongs to no option; allowed: see"),
        (["train", "--data", "absent.npz"], "--data is 'absent.npz', which is no file"),
        (["train", "--data", "mine.npz"], "--model is missing and --eps is missing; 'mine.npz'"),
        (["train", *TINY], "--eps is missing; 'mine.npz' is your own data"),
        (["train", "--norm", "L2"], "--eps is missing; digits has one for norm inf only"),
        (["train", "--optimizer", "adam"], "--lr is missing"),
        (["train", *BALL, "--lam", "1/0"], "'1/0'; allowed: a number such as 0.03 or 8/255"),
        (["train", *BALL, "--validation", "1.5"], "a number of images, or a share such as 0.1"),
        (["train", *BALL, "--validation", "64"], "--validation is 64; allowed: at most 63"),
        (["train", *BALL, "--train", "65"], "--train is 65; allowed: at most 64"),
        (["train", *BALL, "--patience", "x"], "'x'; allowed: an integer"),
        (["train", *BALL, "--device", "gpu"], "allowed: cpu, cuda, or a GPU by its number"),
        (["train", *BALL, "--device", "cuda:99"], "--device is 'cuda:99'; allowed: a GPU that"),
        (["train", "--eps", "wide"], "--eps"),
        (["train", *BALL, "--eps", "-1"], "--eps is -1.0; allowed"),
        (["train", *BALL, "--norm", "3"], "norm is '3'; allowed: inf, 2 and 1, or Linf"),
        (["train", *BALL, "--estimator", "exat"], "did you mean 'exact'"),
        (["train", *BALL, "--penalty", "flat"], "penalty is 'flat'"),
        (["train", *BALL, "--penalty", "lrf"], "did you mean 'lfr'?"),
        (["train", *BALL, "--penalty", "cure"], "lam is None with penalty 'cure'"),
        (["train", *BALL, "--lr", "0"], "--lr is 0.0"),
        (["train", *BALL, "--epochs", "0"], "--epochs is 0"),
        (["train", *BALL, "--batch-size", "0"], "--batch-size is 0"),
        (["train", *BALL, "--resume"], "--resume needs --checkpoint-dir"),
        (
            ["train", *BALL, "--max-grad-norm", "-1"],
            "--max-grad-norm is -1.0; allowed: a finite number > 0\n",
        ),
        (["tune", "--clean-floor", "97"], "a share in (0, 1] (0.97, not 97)\n"),
        (["plot"], "Missing argument 'KIND'; allowed: flatness, surface, gradients or curve"),
        (["train", *BALL, "--output", "missing/a.pt"], "--output is 'missing/a.pt'"),
        (["train", *BALL, "--output", "a.txt"], "ending in .safetensors or .pt or .pth"),
        (["train", "--model", "small-cnn"], "does not run on images of shape (1, 8, 8)"),
        (["check", "--model", "mlp"], "--model is 'mlp'; allowed: 'digits-cnn'"),
        (["check", "--model", "nowhere:make"], "No module named 'nowhere'"),
        (["check", "--model", "nets_of_a_user:number"], "not callable"),
        (["check", "--model", "nets_of_a_user:wrong"], "returned a dict"),
        (["check", "--model", "nets_of_a_user:absent"], "absent"),
        (
            ["check", "--model", "nets_of_a_user:make_raising"],
            "--model is 'nets_of_a_user:make_raising', which fails (KeyError: 'depth')",
        ),
        (
            ["check", "--model", "raising_module:make"],
            "raising_module:make': NameError: name 'torhc'",
        ),
        (
            ["train", *BALL, "--model", "nets_of_a_user:Unfinished"],
            "--model does not run on images of shape (1, 6, 6): AttributeError",
        ),
        (["check", *TINY, "--data", "absent.npz"], "--data is 'absent.npz', which is no file"),
        (["check", "--data", "nets_of_a_user.py"], "--data is 'nets_of_a_user.py'"),
        (["flatness"], "--weights is missing"),
        (["flatness", "--weights", "absent.pt"], "--weights is 'absent.pt', which is no file"),
        (["flatness", "--weights", "mine.npz"], "mine.npz"),
        (["flatness", *BALL, "--split", "validation"], "allowed: train or test"),
        (["flatness", *BALL, "--output", "f.txt"], "ending in .csv or .json"),
        (["demo", "--epochs", "0"], "epochs is 0"),
        (["train", *BALL, "--penalty", "trades", "--lam", "6", "--radius", "0.1"], "has no use"),
        (["train", *BALL, "--penalty", "gradalign", "--lam", "1", "--max-iter", "3"], "no use"),
        (["train", *BALL, "--best-metric", "validation_loss"], "allowed: --validation, or"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(folder, capsys, arguments, words):
    assert words in refusal_of(arguments, capsys)
    assert not (folder / "lfr-weights.safetensors").exists()


def test_a_run_that_is_not_resumed_is_refused_in_the_words_of_the_command(folder, capsys):
    arguments = ["train", *BALL, "--quiet", "--force", "--checkpoint-dir", "run"]
    assert main([*arguments, "--epochs", "1"]) == 0
    capsys.readouterr()
    assert "run', which holds a run; allowed: a new directory, or --resume" in refusal_of(
        [*arguments, "--epochs", "1"], capsys
    )
    refusal = refusal_of([*arguments, "--epochs", "1", "--resume", "--max-iter", "3"], capsys)
    assert "--max-iter is 3, but the run in --checkpoint-dir has 2" in refusal
    resumed = [*arguments, "--epochs", "1", "--resume"]
    refusal = refusal_of([*resumed, "--lr", "0.7"], capsys)
    assert "--resume would go on with another --lr, --optimizer" in refusal
    refusal = refusal_of([*resumed, "--train", "5"], capsys)
    assert "--train leaves 5 training images, but the run in --checkpoint-dir has" in refusal


def test_weights_of_another_network_and_labels_it_lacks(folder, capsys):
    torch.save(digits_cnn().state_dict(), "digits.pt")
    refusal = refusal_of(["flatness", *BALL, "--weights", "digits.pt"], capsys)
    assert "does not fit the model" in refusal
    x = np.zeros((4, 6, 6), dtype=np.float32)
    np.savez("many.npz", x_train=x, y_train=[0, 1, 2, 3])
    many = ["train", "--model", "nets_of_a_user:make", "--data", "many.npz", "--eps", "0.1"]
    assert "labels from 0 to 3; allowed: 0 to 2" in refusal_of(many, capsys)


def test_mistakes_are_found_before_torch_is_imported(folder):
    (folder / "w.pt").write_bytes(b"")
    (folder / "no_plan.yaml").write_text("name: a")
    mistakes = [
        "train --data mnits",
        "train --model digit-cnn",
        "train --model nowhere:make",
        "train --norm 3",
        "train --penalty lfrr",
        "train --penalty cure",
        "train --optimizer sdg",
        "train --lr 0",
        "train --eps wide",
        "train --estimator exat",
        "train --best-metric acuracy",
        "train --weights absent.pt",
        "train --output absent/a.pt",
        "train --output w.pt",
        "train --resume",
        "train --data absent.npz --model small-cnn --eps 0.1",
        "trian",
        "train --epoch 3",
        "tune --penalty llr",
        "tune --attacks Squair",
        "evaluate",
        "evaluate --weights w.pt --attacks PGD-41",
        "evaluate --weights w.pt --split tst",
        "evaluate --weights w.pt --images 0",
        "evaluate --weights w.pt --metrics clever",
        "masking --weights w.pt --surrogate absent.pt",
        "flatness --weights w.pt --estimator exat",
        "check --batch-size 0",
        "plot curv --weights w.pt",
        "plot curve --weights w.pt --compare b=absent.pt",
        "demo --epochs 0",
        "compare absent.yaml",
        "compare no_plan.yaml",
    ]
    printed = printed_by_python(SCRIPTS / "mistakes.py", *mistakes, folder=folder)
    assert printed.splitlines() == [f"{mistake}: 2, []" for mistake in mistakes]


def test_version():
    printed = printed_by_python("-m", "art_lfr", "--version")
    art = importlib.metadata.version("adversarial-robustness-toolbox")
    assert printed.startswith("art-lfr 0.")
    assert (
        f"torch {importlib.metadata.version('torch')}, adversarial-robustness-toolbox {art}"
        in printed
    )


def test_installed_command_and_module(folder):
    command = Path(sys.executable).with_name("art-lfr")
    result = subprocess.run([command, "train", "--norm", "3"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("art-lfr: error: --norm is '3'")
    assert result.stderr.count("\n") == 1
    slow = "import sys, art_lfr.cli; print('torch' in sys.modules or 'art' in sys.modules)"
    assert printed_by_python("-c", slow).strip() == "False"
    assert "art-lfr" in printed_by_python("-m", "art_lfr", "--help")


def test_train_has_every_setting_of_the_trainer():
    """Those of the command line that are given reach the trainer, also where they are 0."""
    from art_lfr.cli.options import without_missing
    from art_lfr.cli.train import train
    from art_lfr.core.keywords import TrainerKeywords

    options = inspect.signature(train).parameters
    assert set(TrainerKeywords.__annotations__) <= set(options)
    settings = dict.fromkeys(TrainerKeywords.__annotations__) | {"lam": 0.0, "autocast": False}
    given = {"lam": 0.0, "autocast": False, "max_grad_norm": None}
    assert without_missing(settings | {"max_grad_norm": "none"}) == given
