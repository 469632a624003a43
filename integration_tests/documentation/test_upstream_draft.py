"""The draft for ART in docs/upstream: it runs, and it takes the steps of this package's trainer."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

import art
import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
from lfr_testing import ROOT, printed_by_python
from torch import nn

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.core.settings import LFRSettings

DRAFT = ROOT / "docs" / "upstream"
PACKAGE = "art.defences.trainer"
CLASSES = ("adversarial_trainer_lfr", "adversarial_trainer_lfr_pytorch")
EPS = {np.inf: 0.1, 2: 0.5, 1: 2.0}


@pytest.fixture
def draft(monkeypatch):
    """The draft's PyTorch module, loaded under the name that it would have in ART."""
    for name in CLASSES:
        full = f"{PACKAGE}.{name}"
        spec = importlib.util.spec_from_file_location(full, DRAFT / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, full, module)
        spec.loader.exec_module(module)
    return module


def additions_to(path: str) -> tuple[str, list[str]]:
    """The line after which docs/upstream/README.md adds lines to a file of ART, and those lines."""
    text = (DRAFT / "README.md").read_text()
    (diff,) = re.findall(
        rf"^```diff\n--- a/{path}\n.*?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    context = [line[1:] for line in diff.splitlines() if line.startswith(" ")]
    return context[0], [line[1:] for line in diff.splitlines() if line.startswith("+")]


@pytest.fixture(scope="module")
def art_tree(tmp_path_factory):
    """A folder with ART as the draft would leave it: everything else in it is the installed ART."""
    root = tmp_path_factory.mktemp("upstream")
    folder, installed = root / "art", Path(art.__file__).parent
    for part in ("defences", "trainer", None):
        folder.mkdir()
        for path in installed.iterdir():
            if path.name not in (part, "__pycache__"):
                (folder / path.name).symlink_to(path)
        if part is not None:
            folder, installed = folder / part, installed / part
    for name in CLASSES:
        shutil.copy(DRAFT / f"{name}.py", folder)
    after, added = additions_to("art/defences/trainer/__init__.py")
    lines = (installed / "__init__.py").read_text().splitlines()
    lines[lines.index(after) + 1 : lines.index(after) + 1] = added
    (folder / "__init__.py").unlink()
    (folder / "__init__.py").write_text("\n".join(lines))
    return root


def run_in(art_tree: Path, *arguments: object) -> str:
    """What this interpreter prints when its ART is the one with the draft."""
    environment = {**os.environ, "PYTHONPATH": str(art_tree), "OMP_NUM_THREADS": "1"}
    return printed_by_python(*arguments, folder=art_tree, environment=environment)


def network(kind: str) -> nn.Sequential:
    norm = nn.BatchNorm2d(8) if kind == "batch-norm" else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), norm, nn.Softplus(), nn.Flatten(), nn.Linear(512, 10)
    )


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("kind", ["smooth", "batch-norm", "preprocessing", "features"])
@pytest.mark.parametrize("warmup", [1.0, 0.5])
def test_a_step_is_that_of_this_package(make_classifier, data, weights, draft, norm, kind, warmup):
    """One batch, from the same weights and start noise, to the same weights and buffers."""
    # With 64 samples the mean over the batch is an exact division.
    x, y = data.x[:64], data.y[:64]
    settings = {"norm": norm, "eps": EPS[norm], "max_iter": 4, "lam": 2 * EPS[norm]}
    keywords = {}
    if kind == "preprocessing":
        keywords["preprocessing"] = (np.array(0.3), np.array(0.2))
    if kind == "features":  # each has its own valid range, given in one row as ART takes it
        widths = np.linspace(0.5, 2.0, 64, dtype=np.float32)
        x = x * widths.reshape(1, 8, 8)
        keywords["clip_values"] = (np.zeros(64, np.float32), widths)

    def make():
        torch.manual_seed(0)
        return make_classifier(model=network(kind), **keywords)

    ours, theirs, clean = make(), make(), make()
    trainer = AdversarialTrainerLFRPyTorch(
        ours,
        **settings,
        renew_every=1,
        warmup_epochs=1 / warmup,
        seed=7,
        verbose=False,
        held_epochs=0,
        max_grad_norm=None,
    )
    trainer.fit(x, y, nb_epochs=1, batch_size=64)

    # This package draws the order and then the noise from a generator of its own, the draft the
    # noise from torch's: put it where the package's stood after the order.
    generator = torch.Generator().manual_seed(7)
    order = torch.randperm(64, generator=generator).numpy()
    for classifier, lam in ((theirs, settings["lam"]), (clean, 0.0)):
        torch.set_rng_state(generator.get_state())
        step = draft.AdversarialTrainerLFRPyTorch(classifier, **{**settings, "lam": lam})
        loss, correct, count = step._batch_process(x[order], y[order], warmup)
        assert count == 64
        if lam:
            assert loss / count == pytest.approx(trainer.history[0]["loss"], rel=1e-4)
            assert correct / count == trainer.history[0]["train_accuracy"]

    found, expected, without = map(weights, (theirs, ours, clean))
    largest = 0.0
    for name, value in expected.items():
        if not value.is_floating_point():
            assert torch.equal(found[name], value)
            continue
        # What the penalty did, without the clean term, which would make all steps look alike. Under
        # BatchNorm a bias and the running statistics get nothing of it but rounding.
        effect = value - without[name]
        size = float(effect.abs().max())
        # Where a pixel's gradient is 0 but for rounding, its step in l-inf goes either way: under
        # BatchNorm the draft is up to 1.4e-3 of the effect away from itself with other vector
        # instructions of the processor.
        part = 3e-3 if (norm, kind) == (np.inf, "batch-norm") else 1e-3
        torch.testing.assert_close(
            found[name] - without[name], effect, rtol=0, atol=part * size + 1e-7
        )
        largest = max(largest, size)
    assert largest > 3e-4


def test_defaults_and_warm_up_are_those_of_this_package(make_classifier, data, draft, monkeypatch):
    """As in a trainer of this package: over two epochs of its life, over calls of `fit` too."""
    for norm, eps in EPS.items():
        trainer = draft.AdversarialTrainerLFRPyTorch(make_classifier(), norm=norm, eps=eps)
        settings = LFRSettings(eps=eps, norm=norm)
        assert trainer._max_iter == settings.steps
        assert trainer._eps_step == pytest.approx(settings.step_size)
        assert trainer._lam == pytest.approx(settings.lam)
        assert trainer._radius == pytest.approx(settings.radius)

    classifier, seen = make_classifier(), []
    ours = AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=0, verbose=False)
    trainer = draft.AdversarialTrainerLFRPyTorch(make_classifier(), eps=0.1, max_iter=0)
    monkeypatch.setattr(
        trainer, "_batch_process", lambda x, y, part: (seen.append(part), (0.0, 0.0, len(x)))[1]
    )
    for _ in range(3):
        trainer.fit(data.x[:50], data.y[:50], nb_epochs=1, batch_size=10)
        ours.fit(data.x[:50], data.y[:50], nb_epochs=1, batch_size=10)
    assert [0.1 * part for part in seen[4::5]] == pytest.approx([r["eps"] for r in ours.history])
    assert seen == pytest.approx([min(1.0, (k + 1) / 10) for k in range(15)])


def test_random_layers_see_the_same_masks_in_all_passes(make_classifier, data, draft):
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.drawn = []

        def forward(self, x):
            if self.training:
                self.drawn.append(float(torch.rand(())))
            return x

    noise = Noise()
    classifier = make_classifier(model=nn.Sequential(noise, network("smooth")))
    trainer = draft.AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=2)
    trainer.fit(data.x[:64], data.y[:64], batch_size=32, nb_epochs=1)
    # Clean pass, direction, upper end, lower end; two batches.
    first, second = noise.drawn[:4], noise.drawn[4:]
    assert len(second) == 4
    assert len(set(first)) == len(set(second)) == 1
    assert first != second


class Counter(PreprocessorPyTorch):
    calls = 0

    def forward(self, x, y=None):
        self.calls += 1
        return x, y


def test_preprocessing_is_that_for_training_and_that_for_prediction(make_classifier, data, draft):
    """The search sees what `predict` runs; the passes that are descended what `fit` does."""
    fit = Counter(device_type="cpu", apply_fit=True, apply_predict=False)
    predict = Counter(device_type="cpu", apply_fit=False, apply_predict=True)
    classifier = make_classifier(preprocessing_defences=[fit, predict])
    trainer = draft.AdversarialTrainerLFRPyTorch(classifier, eps=0.1, max_iter=3)
    trainer._batch_process(data.x[:16], data.y[:16])
    assert fit.calls == 4  # clean pass, direction, upper end, lower end
    assert predict.calls == 3 * 2 + 1


def test_it_makes_digits_robust(make_classifier, data, draft):
    standard, robust = (make_classifier(dropout=0.0, batch_norm=False) for _ in range(2))
    torch.manual_seed(0)
    np.random.seed(0)
    standard.fit(data.x, data.y, nb_epochs=15, batch_size=64)
    trainer = draft.AdversarialTrainerLFRPyTorch(robust, eps=0.1, max_iter=3)
    trainer.fit(data.x, data.y, nb_epochs=15, batch_size=64)
    x, y = data.x_test, data.y_test
    held = []
    for classifier in (standard, robust):
        assert (classifier.predict(x).argmax(axis=1) == y).mean() > 0.9
        attack = ProjectedGradientDescent(
            classifier, eps=0.1, eps_step=0.02, max_iter=20, verbose=False
        )
        held.append((classifier.predict(attack.generate(x, y)).argmax(axis=1) == y).mean())
    assert held[1] > held[0] + 0.1


def test_the_draft_stands_alone(art_tree):
    """No line of it needs this package, nor torch where ART is only imported."""
    for path in DRAFT.glob("*.py"):
        assert "art_lfr" not in path.read_text(), path
    run_in(art_tree, Path(__file__).parent / "scripts" / "import_without_torch.py")


def test_the_example(art_tree):
    output = run_in(art_tree, DRAFT / "adversarial_training_lfr.py")
    found = {
        (samples, method): float(rate)
        for samples, method, rate in re.findall(
            r"^Accuracy on (\w+) test samples after ([\w ]+): ([\d.]+)%$", output, re.MULTILINE
        )
    }
    assert found["benign", "standard training"] > 93
    assert found["benign", "LFR"] > 93
    assert found["adversarial", "LFR"] > 70
    assert found["adversarial", "LFR"] > found["adversarial", "standard training"] + 15


def test_its_tests_pass(art_tree):
    """With the fixtures of upstream_conftest.py in place of those of ART's test tree."""
    folder = art_tree / "tests" / "defences" / "trainer"
    folder.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("upstream_conftest.py"), art_tree / "conftest.py")
    shutil.copy(DRAFT / "test_adversarial_trainer_lfr_pytorch.py", folder)
    (art_tree / "pytest.ini").write_text("[pytest]")  # none from further up
    output = run_in(
        art_tree,
        *("-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider"),
        folder,
    )
    last = output.strip().splitlines()[-1]
    assert int(re.match(r"(\d+) passed", last)[1]) >= 20
    assert "skipped" not in last


def test_the_docs_entry_names_both_classes():
    entry = (DRAFT / "trainer.rst").read_text()
    classes = re.findall(r"^\.\. autoclass:: (\w+)$", entry, re.MULTILINE)
    assert classes == ["AdversarialTrainerLFR", "AdversarialTrainerLFRPyTorch"]
    _, added = additions_to("docs/modules/defences/trainer.rst")
    assert [line for line in entry.splitlines() if line] == [line for line in added if line]
