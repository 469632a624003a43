"""Checkpoints where the disk is full, where the directory is bad, or where two runs want one."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lfr_testing import printed_by_python
from torch.utils.data import DataLoader, TensorDataset

from art_lfr import AdversarialTrainerLFRPyTorch, evaluate
from art_lfr.autoattack import run_autoattack
from art_lfr.storage.tensor_files import load_run
from art_lfr.tuning import tune

SCRIPTS = Path(__file__).with_name("scripts")
LFR = {"eps": 0.1, "max_iter": 1, "verbose": False}


@pytest.fixture
def small(data):
    return data.x[:64], data.y[:64]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    assert "OSError" in printed_by_python(SCRIPTS / "full_disk.py", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "last.pt"]
    assert [record["epoch"] for record in load_run(tmp_path / "last.pt")["history"]] == [1]


@pytest.mark.skipif(os.name == "nt", reason="directories are held on POSIX only")
def test_the_second_run_in_a_directory_is_refused(make_classifier, small, weights, same, tmp_path):
    other = make_classifier(seed=1)
    before, errors = weights(other), []

    def start_another(record: dict[str, float]) -> None:
        trainer = AdversarialTrainerLFRPyTorch(other, **LFR)
        with pytest.raises(ValueError, match="where another run is at work") as caught:
            trainer.fit(*small, nb_epochs=1, checkpoint_dir=tmp_path, resume=True)
        errors.append(str(caught.value))

    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
    trainer.fit(*small, nb_epochs=1, checkpoint_dir=tmp_path, callback=start_another)
    assert errors == [
        f"checkpoint_dir is {str(tmp_path)!r}, where another run is at work; allowed: a directory "
        "of its own"
    ]
    assert same(weights(other), before)
    # Given up at the end.
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
    trainer.fit(*small, nb_epochs=1, checkpoint_dir=tmp_path, resume=True)


def fitted(make_classifier, x, y, place):
    AdversarialTrainerLFRPyTorch(make_classifier(), **LFR).fit(
        x, y, nb_epochs=1, checkpoint_dir=place, resume=True
    )


def evaluated(make_classifier, x, y, place):
    keywords = {"attacks": "FGSM", "flatness_steps": 0, "state_dir": place}
    evaluate(make_classifier(), x, y, eps=0.1, **keywords)


def attacked(make_classifier, x, y, place):
    run_autoattack(make_classifier(), x[:4], y[:4], eps=0.3, state_path=place)


def tuned(make_classifier, x, y, place):
    keywords = {"minutes": 1e-6, "epochs": 1, "max_iter": 1, "attacks": ["FGSM"]}
    tune(make_classifier, x, y, eps=0.1, state_dir=place, **keywords)


USES = [fitted, evaluated, attacked, tuned]


@pytest.mark.parametrize("use", USES)
def test_what_another_process_holds_is_refused(use, make_classifier, small, tmp_path):
    place = tmp_path / "state"
    held = [sys.executable, SCRIPTS / "hold_directory.py", place]
    other = subprocess.Popen(
        [*held, "file"] if use is attacked else held,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout.readline() == "held\n"
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=r"(_dir|_path) is .*state', where another run is at"):
            use(make_classifier, *small, place)
        assert sorted(tmp_path.rglob("*")) == before
    use(make_classifier, *small, place)


@pytest.mark.parametrize("use", USES)
def test_a_directory_is_the_same_wherever_the_process_goes(
    use, make_classifier, small, tmp_path, monkeypatch
):
    """A callback, or the user's own network, changes the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    class Wandering(torch.nn.Module):
        def forward(self, x):
            os.chdir(tmp_path / "elsewhere")
            return x

    def wandering():
        classifier = make_classifier()
        classifier.model.append(Wandering())
        return classifier

    use(wandering, *small, "state")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "state").exists()


@pytest.mark.parametrize("use", USES)
def test_without_locks_and_flushes_everything_works(
    use, make_classifier, small, tmp_path, monkeypatch
):
    fcntl, whole = pytest.importorskip("fcntl", reason="only POSIX has it"), os.fsync

    def no_lock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    def no_flush(opened):
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        whole(opened)

    monkeypatch.setattr(fcntl, "flock", no_lock)
    monkeypatch.setattr(os, "fsync", no_flush)
    with pytest.warns(RuntimeWarning) as warned:
        use(make_classifier, *small, tmp_path / "state")
    said = [str(w.message) for w in warned if issubclass(w.category, RuntimeWarning)]
    assert sum("files cannot be locked there" in text for text in said) == 1
    assert sum("names cannot be flushed to the disk" in text for text in said) == 1


def test_workers_of_a_loader_do_not_keep_it(make_classifier, small, tmp_path):
    x, y = (torch.as_tensor(values) for values in small)
    loader = DataLoader(TensorDataset(x, y), 32, num_workers=1, persistent_workers=True)
    for _ in range(2):  # the worker of the first call has the directory open, and lives on
        trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
        trainer.fit_loader(loader, nb_epochs=1, checkpoint_dir=tmp_path, resume=True)
    assert loader._iterator is not None


def test_a_file_in_the_way_is_named(make_classifier, small, weights, same, tmp_path):
    classifier, way = make_classifier(), tmp_path / "file"
    before = weights(classifier)
    way.write_text("")
    for directory in (way, way / "below"):
        trainer = AdversarialTrainerLFRPyTorch(classifier, **LFR)
        with pytest.raises(OSError, match=r"checkpoint_dir is .*file.*; allowed: a directory"):
            trainer.fit(*small, nb_epochs=1, checkpoint_dir=directory)
    assert same(weights(classifier), before)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write into any directory"
)
def test_a_read_only_directory_changes_nothing(make_classifier, small, weights, same, tmp_path):
    tmp_path.chmod(0o500)
    classifier = make_classifier()
    before = weights(classifier)
    with pytest.raises(OSError, match=r"checkpoint_dir is .*; allowed: a directory that can be"):
        AdversarialTrainerLFRPyTorch(classifier, **LFR).fit(
            *small, nb_epochs=1, checkpoint_dir=tmp_path
        )
    tmp_path.chmod(0o700)
    assert same(weights(classifier), before)


def test_a_missing_directory_is_made(make_classifier, small, tmp_path):
    trainer = AdversarialTrainerLFRPyTorch(make_classifier(), **LFR)
    trainer.fit(*small, nb_epochs=1, checkpoint_dir=tmp_path / "a" / "b")
    assert torch.load(tmp_path / "a" / "b" / "last.pt", weights_only=True)["history"]
