"""Files made to break what reads them: one line, no program started, no hang, nothing written.

Archives, images, weights and plans, each through the command that a user would give them to.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import pickle
import signal
import socket
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from lfr_testing import Malicious, pillow_image, refusal_of
from torch import nn

from art_lfr.data import load_npz
from art_lfr.models import digits_cnn
from art_lfr.storage.info import RECORD
from art_lfr.storage.tensor_files import BEFORE_1_6, load_weights

pytestmark = pytest.mark.skipif(os.name == "nt", reason="makes pipes, devices and links of POSIX")
SECONDS = 20
MARKER = Path("marker")
X, Y = np.arange(36, dtype=np.uint8).reshape(4, 3, 3), np.arange(4) % 2


@pytest.fixture(autouse=True)
def _no_program_and_no_hang(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    started: list[object] = []

    def refuse(*arguments: object, **keywords: object) -> None:
        started.append(arguments)  # the error itself may be taken for one of the file
        raise OSError("no program")

    def stop(*_: object) -> None:
        raise TimeoutError(f"nothing for {SECONDS} seconds")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    assert not MARKER.exists()
    assert started == []
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    written = io.BytesIO()
    save(written)
    return written.getvalue()


def npz(**arrays: Any) -> bytes:
    return saved(lambda file: np.savez(file, **{"x_train": X, "y_train": Y, **arrays}))


def npy(array: Any, header: bytes | None = None) -> bytes:
    """An array as a member of an archive, under another header where one is given."""
    whole = saved(lambda file: np.save(file, array))
    if header is None:
        return whole
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + whole[128:]


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    def write(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, content in members:
                archive.writestr(name, content)

    return saved(write)


def with_x(content: bytes) -> bytes:
    return zipped(("x_train.npy", content), ("y_train.npy", npy(Y)))


def flipped(content: bytes, place: int, bit: int = 1) -> bytes:
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def marked(content: bytes, offset: int, value: int) -> bytes:
    """An archive with a number changed in its list of members, for each of them."""
    changed = bytearray(content)
    place = content.find(b"PK\x01\x02")
    while place >= 0:
        changed[place + offset : place + offset + 2] = struct.pack("<H", value)
        place = content.find(b"PK\x01\x02", place + 4)
    return bytes(changed)


def header(shape: object, dtype: str = "|u1", more: str = "") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, {more}}}"
    return text.ljust(117).encode() + b"\n"


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n%%EOF\n"
JPEG = {
    "train_jpeg": np.frombuffer(POSTSCRIPT * 2, np.uint8),
    "train_offsets": np.arange(3) * len(POSTSCRIPT),
    "train_labels": np.arange(2),
}


def jpegs(**arrays: Any) -> bytes:
    return saved(lambda file: np.savez(file, **{**JPEG, **arrays}))


# Files of a user's own come with a network.
MODEL = ["--model", "digits-cnn"]

ARCHIVES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"no archive",
    "begin of an archive": lambda: b"PK\x03\x04",
    "half": lambda: npz()[: len(npz()) // 2],
    "without its end": lambda: npz()[:-8],
    "without its begin": lambda: npz()[8:],
    "a wrong bit": lambda: flipped(npz(), 180),
    "encrypted": lambda: marked(npz(), 8, 1),
    "unknown compression": lambda: marked(npz(), 10, 77),
    "an array alone": lambda: npy(X),
    "gzip": lambda: gzip.compress(npz()),
    "pickle": lambda: pickle.dumps({"x_train": X}),
    "tar": lambda: saved(lambda file: tarfile.open(fileobj=file, mode="w").close()),
    "no members": zipped,
    "directories": lambda: zipped(("x_train.npy/", b""), ("y_train.npy/", b"")),
    "other places": lambda: zipped(("../x_train.npy", npy(X)), ("/y_train.npy", npy(Y))),
    "without endings": lambda: zipped(("x_train", npy(X)), ("y_train", npy(Y))),
    "twice": lambda: zipped(
        ("x_train.npy", npy(X)), ("x_train.npy", npy(X)), ("y_train.npy", npy(Y))
    ),
    "bomb": lambda: zipped(
        ("x_train.npy", bytes(2**28 + 1)),
        ("y_train.npy", npy(Y)),
        compression=zipfile.ZIP_DEFLATED,
    ),
    "no magic": lambda: with_x(b"x" * 200),
    "future version": lambda: with_x(b"\x93NUMPY\x09\x00" + npy(X)[8:]),
    "torn header": lambda: with_x(npy(X)[:40]),
    "header of code": lambda: with_x(npy(X, b"__import__('os').system('true')".ljust(117) + b"\n")),
    "header of text": lambda: with_x(npy(X, b"'x'".ljust(117) + b"\n")),
    "huge": lambda: with_x(npy(X, header("(1000000, 1000, 1000)"))),
    "too huge for a number": lambda: with_x(npy(X, header("(10**9, 10**9, 10**9)"))),
    "larger than its data": lambda: with_x(npy(X, header("(9, 9, 9)"))),
    "smaller than its data": lambda: with_x(npy(X, header("(4, 3, 2)"))),
    "negative": lambda: with_x(npy(X, header("(-4, 3, 3)"))),
    "shape of text": lambda: with_x(npy(X, header("'433'"))),
    "unknown type": lambda: with_x(npy(X, header("(4, 3, 3)", "|z9"))),
    "objects": lambda: npz(x_train=np.array([{}, {}, {}, {}], dtype=object)),
    "objects for labels": lambda: npz(y_train=np.array([0, 1, None, 1], dtype=object)),
    "records": lambda: npz(x_train=np.zeros((4, 3, 3), dtype=[("a", "u1")])),
    "strings": lambda: npz(x_train=X.astype(str)),
    "dates": lambda: npz(x_train=X.astype("datetime64[s]")),
    "complex": lambda: npz(x_train=X.astype(complex)),
    "integers": lambda: npz(x_train=X.astype(np.uint16)),
    "booleans": lambda: npz(x_train=X > 3),
    "zeros and ones": lambda: npz(x_train=X % 2),
    "NaN": lambda: npz(x_train=np.full((4, 3, 3), np.nan)),
    "no images": lambda: npz(x_train=X[:0], y_train=Y[:0]),
    "one number": lambda: npz(x_train=np.array(1.0)),
    "five axes": lambda: npz(x_train=X[..., None, None]),
    "labels missing": lambda: saved(lambda file: np.savez(file, x_train=X)),
    "labels too few": lambda: npz(y_train=Y[:3]),
    "a label of 10^9": lambda: npz(y_train=Y * 10**9),
    "a label of 2^64": lambda: npz(y_train=Y.astype(np.uint64) * np.uint64(2**64 - 1)),
    "a negative label": lambda: npz(y_train=-Y),
    "half labels": lambda: npz(y_train=Y / 2),
    "NaN for labels": lambda: npz(y_train=np.full(4, np.nan)),
    "two ones": lambda: npz(y_train=np.ones((4, 2))),
    "labels of strings": lambda: npz(y_train=Y.astype(str)),
    "PostScript for JPEG": jpegs,
    "JPEGs that end too late": lambda: jpegs(train_offsets=np.arange(3) * 10**9),
    "JPEGs backwards": lambda: jpegs(train_offsets=np.array([9, 5, 0])),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(ARCHIVES[name]())
    message = refusal_of(["check", *MODEL, "--data", str(path)], capsys)
    assert list(tmp_path.iterdir()) == [path]
    # Before it is unpacked.
    assert name != "bomb" or "it unpacks from" in message


def image(ending: str, mode: str = "L", size: tuple[int, int] = (8, 8), colour: Any = 90) -> bytes:
    return saved(lambda file: pillow_image().new(mode, size, colour).save(file, ending))


def png_of(width: int, height: int) -> bytes:
    """A PNG that says to have this size."""
    start = struct.pack(">II", width, height) + image("PNG")[24:29]
    check = struct.pack(">I", zipfile.crc32(b"IHDR" + start))
    return image("PNG")[:16] + start + check + image("PNG")[33:]


IMAGES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"no image",
    "PostScript": lambda: POSTSCRIPT,
    "binary PostScript": lambda: (
        b"\xc5\xd0\xd3\xc6" + struct.pack("<IIII", 32, 99, 0, 0) + bytes(12) + POSTSCRIPT
    ),
    "PDF": lambda: b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF",
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "icon": lambda: image("ICO", "RGB", (16, 16), (1, 2, 3)),
    "PCX": lambda: image("PCX"),
    "WMF": lambda: b"\xd7\xcd\xc6\x9a" + bytes(60),
    "FITS": lambda: b"SIMPLE  =                    T".ljust(2880),
    "half a PNG": lambda: image("PNG")[:50],
    "PNG with a wrong sum": lambda: flipped(image("PNG"), 30),
    "PNG of 10^18 pixels": lambda: png_of(10**9, 10**9),
    "PNG of no pixels": lambda: png_of(0, 0),
    "PNG of 16 bits": lambda: image("PNG", "I;16"),
    "half a JPEG": lambda: image("JPEG", size=(64, 64))[:300],
    "half a GIF": lambda: image("GIF")[:12],
    "half a BMP": lambda: image("BMP")[:40],
    "half a TIFF": lambda: image("TIFF")[:20],
    "TIFF of floats": lambda: image("TIFF", "F", colour=0.5),
    "half a WEBP": lambda: b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    "PPM of 10^18 pixels": lambda: b"P5 1000000000 1000000000 255\n",
    "PPM of text": lambda: b"P5 a b c\n",
    "zeros and ones": lambda: image("PNG", colour=1),
}


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        (tmp_path / "train" / folder / f"1.{ending}").write_bytes(IMAGES[name]())
    message = refusal_of(["check", *MODEL, "--data", str(tmp_path)], capsys)
    assert "image" in message


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    # A short name: those of sockets are limited.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": pipe,
    "a socket": listening,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("none")),
    "a link to itself": lambda path: path.symlink_to(path),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("name", NO_FILES)
@pytest.mark.parametrize("kind", ["data", "image", "weights", "plan"])
def test_what_is_no_file(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = {"data": "npz", "image": "png", "weights": "pt", "plan": "yaml"}[kind]
    path = tmp_path / "train" / "a" / f"1.{ending}"
    path.parent.mkdir(parents=True)
    NO_FILES[name](path)
    if kind == "image":
        (tmp_path / "train" / "b").mkdir()
        (tmp_path / "train" / "b" / "1.png").write_bytes(image("PNG"))
    arguments = {
        "data": ["check", *MODEL, "--data", str(path)],
        "image": ["check", *MODEL, "--data", str(tmp_path)],
        "weights": ["flatness", "--weights", str(path)],
        "plan": ["compare", str(path), "--output", str(tmp_path / "out")],
    }[kind]
    refusal_of(arguments, capsys)
    assert not (tmp_path / "out").exists()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def tensors(**changes: Any) -> dict[str, Any]:
    return {**network().state_dict(), **changes}


def file_of(content: Any, *, old: bool = False) -> bytes:
    return saved(lambda file: torch.save(content, file, _use_new_zipfile_serialization=not old))


def wrong_bit() -> bytes:
    content, weights = file_of(tensors()), network()[0].weight.detach().numpy().tobytes()
    return flipped(content, content.index(weights))


def as_old_tar(first: str = "sys_info") -> bytes:
    """As torch 0.1 wrote it, with a command in it."""

    def write(file: io.BytesIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for name in (first, "pickle", "storages", "tensors"):
                content = pickle.dumps(Malicious(MARKER))
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    return saved(write)


def scripted() -> bytes:
    return saved(lambda file: torch.jit.save(torch.jit.script(nn.Linear(3, 2)), file))


def renamed(rename: Callable[[str], str]) -> dict[str, Any]:
    return {rename(name): value for name, value in tensors().items()}


AUTHORS = ["conv.w", "conv.b", "norm.w", "norm.b", "norm.m", "norm.v", "norm.n", "fc.w", "fc.b"]
WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "damaged or is no file of tensors"),
    "text": (lambda: b"no weights", "damaged or is no file of tensors"),
    "web page": (lambda: b"<!DOCTYPE html><html></html>", "no file of tensors"),
    "empty safetensors": (lambda: struct.pack("<Q", 2) + b"{}", "it lacks 0.weight"),
    "half of safetensors": (lambda: safetensors.torch.save(tensors())[:-5], "is damaged or is no"),
    "a record of safetensors that is none": (
        lambda: safetensors.torch.save(tensors(), {RECORD: "[1]"}),
        "is damaged or is no safetensors file",
    ),
    "archive of arrays": (npz, "not written by torch.save"),
    "TorchScript": (scripted, "not written by torch.save"),
    "a command": (lambda: file_of({"a": Malicious(MARKER)}), "it asks for .*system"),
    "options of a training": (
        lambda: file_of({"state_dict": tensors(), "args": argparse.Namespace(lr=0.1)}),
        r"asks for argparse.Namespace. If you trust .* weights alone: load it with torch.load",
    ),
    "a command in a pickle": (lambda: pickle.dumps(Malicious(MARKER)), "no file of tensors"),
    "a command in the old format": (
        lambda: file_of({"a": Malicious(MARKER)}, old=True),
        "it asks for .*system",
    ),
    "a command in a tar": (as_old_tar, "no file of tensors"),
    "a tar that begins as a pickle": (
        lambda: as_old_tar(BEFORE_1_6.decode(errors="surrogateescape")),
        "no file of tensors.*is not a zip file",
    ),
    "a module": (lambda: file_of(network()), "it asks for torch.nn"),
    "half": (lambda: file_of(tensors())[:700], "damaged"),
    "half in the old format": (lambda: file_of(tensors(), old=True)[:700], "damaged"),
    "begin of the old format": (lambda: file_of(tensors(), old=True)[:15], "damaged"),
    "a wrong bit": (wrong_bit, "is not what its check sum says"),
    "compressed": (
        lambda: zipped(
            ("a/data.pkl", bytes(9999)), ("a/version", b"3"), compression=zipfile.ZIP_DEFLATED
        ),
        "not written by torch.save",
    ),
    "a list": (lambda: file_of([torch.ones(2)]), "holds a list; allowed: a dict"),
    "a tensor": (lambda: file_of(torch.ones(2)), "holds a Tensor; allowed: a dict"),
    "nothing in it": (lambda: file_of({}), "it lacks 0.weight, 0.bias, 1.weight and 5 more"),
    "NaN": (
        lambda: file_of(tensors(**{"2.bias": torch.tensor([0.0, np.nan])})),
        "has NaN in '2.bias'; allowed: weights without",
    ),
    "a number": (lambda: file_of(tensors(**{"2.bias": 0.5})), "has a float under '2.bias'"),
    "numbers for names": (lambda: file_of({0: torch.ones(2)}), "has a Tensor under 0"),
    "nested elsewhere": (lambda: file_of({"ema": tensors()}), "has a dict under 'ema'; allowed"),
    "other shapes": (
        lambda: file_of(tensors(**{"2.bias": torch.ones(9)})),
        "does not fit the model: .*size mismatch",
    ),
    "one too few": (
        lambda: file_of({k: v for k, v in tensors().items() if k != "2.bias"}),
        "it lacks 2.bias; allowed: weights of this network",
    ),
    "one too many": (lambda: file_of(tensors(a=torch.ones(1))), "it has a; allowed"),
    "names of the authors": (
        lambda: file_of(dict(zip(AUTHORS, tensors().values(), strict=True))),
        r"lacks 0.weight, .* and has conv.w, .* These have its shapes in its order: to rename",
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, says = WEIGHTS[name]
    path = tmp_path / "weights.pt"
    path.write_bytes(content())
    model, before = network(), network().state_dict()
    with pytest.raises(ValueError, match=says):
        load_weights(model, path)
    after = model.state_dict()
    if name != "other shapes":
        assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert "--weights is" in refusal_of(["flatness", "--weights", str(path)], capsys)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    "content",
    [
        tensors,
        lambda: {"state_dict": tensors(), "epoch": 3},
        lambda: {"net": tensors(), "acc": 0.5},
        lambda: {"model": tensors()},
        lambda: {"model_state_dict": tensors(), "optimizer": {"state": {}}},
        lambda: renamed(lambda name: f"module.{name}"),
        lambda: {"state_dict": renamed(lambda name: f"module.{name}")},
        lambda: renamed(lambda name: f"_orig_mod.module.{name}"),
        lambda: {"net": {"state_dict": renamed(lambda name: f"module.model.{name}")}},
        lambda: {k: v for k, v in tensors().items() if "num_batches" not in k},
    ],
)
def test_weights_as_they_are_published(content: Any, old: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(file_of(content(), old=old))
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_weights(model, path)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in tensors().items())


def test_names_of_the_model_itself_are_not_taken_for_a_wrapper(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("module", nn.Linear(3, 2))
    path = tmp_path / "weights.pt"
    path.write_bytes(file_of(model.state_dict()))
    load_weights(model, path)


PLAN: dict[str, Any] = {
    "name": "small",
    "data": "digits",
    "model": "digits-cnn",
    "eps": 0.1,
    "methods": [{"name": "AT", "kind": "pgd"}],
}
TEXT = yaml.safe_dump(PLAN)


def method(kind: str = "lfr", **settings: Any) -> dict[str, Any]:
    return {"methods": [{"name": "AT", "kind": kind, **settings}]}


NAN = float("nan")
# What is changed in the plan, and what the error says.
PLANS: list[tuple[dict[str, Any], str]] = [
    *(({"name": name}, "name is") for name in ("", "..", ".a", "a/b", "/tmp/x", "../x", "a\\b")),
    *(({"name": name}, "name is") for name in ("a\n", "a\x00", "a" * 200, "a ", 3, None, ["a"])),
    ({"name": "trainings"}, "name is 'trainings'"),
    ({"data": 3}, "data is a int"),
    ({"data": ""}, "data is ''"),
    ({"model": ["digits-cnn"]}, "model is a list"),
    ({"title": 3}, "title is a int"),
    ({"eps": "0.1"}, "eps is '0.1'"),
    ({"eps": NAN}, "eps is nan"),
    ({"eps": True}, "eps is True"),
    ({"norm": "l7"}, "norm is 'l7'"),
    ({"flip": "no"}, "flip is 'no'; allowed: True or False"),
    ({"flip": 1}, "flip is 1"),
    ({"epochs": 10**30}, "epochs is 1e+30"),
    ({"epochs": "3"}, "epochs is '3'"),
    ({"epochs": 1.5}, "epochs is 1.5"),
    ({"batch_size": True}, "batch_size is True"),
    ({"lr": float("inf")}, "lr is inf"),
    ({"weight_decay": -1}, "weight_decay is -1"),
    ({"train": 0}, "train is 0"),
    ({"validation": "all"}, "validation is 'all'"),
    ({"attacks": []}, "attacks is empty"),
    ({"attacks": "PGD-40"}, "attacks is a str; allowed: a list"),
    ({"attacks": [["PGD-40"]]}, "attacks is ['PGD-40']"),
    ({"attacks": None}, "attacks is a NoneType"),
    ({"seeds": [-1]}, "seeds is -1"),
    ({"seeds": [0, 0]}, "seeds is [0, 0]; allowed: each number once"),
    ({"seeds": [[0]]}, "seeds is [0]"),
    ({"seeds": [2**63]}, "seeds is 9223372036854775808"),
    ({"seeds": 3}, "seeds is a int; allowed: a list"),
    ({"splits": ["a"]}, "splits is 'a'"),
    ({"images": [5, 5]}, "images is [5, 5]; allowed: two, the first and last + 1"),
    ({"images": [NAN, 3]}, "images is nan"),
    ({"methods": {}}, "methods is a dict"),
    ({"methods": ["AT"]}, "methods is a str; allowed: mappings"),
    ({"methods": [[1]]}, "methods is a list"),
    ({"methods": [{"name": "a/b", "kind": "pgd"}]}, "name is 'a/b'"),
    ({"methods": [{"name": 3, "kind": "pgd"}]}, "name is 3"),
    ({"methods": [{"name": n, "kind": "pgd"} for n in ("a", "A")]}, "each name once"),
    (method(kind=["pgd"]), "kind is ['pgd']"),
    (method(attack_steps=0), "attack_steps is 0"),
    (method(attack_steps=10**12), "attack_steps is 1e+12"),
    (method(autocast="yes"), "autocast is 'yes'"),
    (method(warm_start=1), "warm_start is 1"),
    (method(flip="no"), "flip is 'no'"),
    (method(renew_every=0), "renew_every is 0"),
    (method(estimator=["exact"]), "estimator is a list"),
    (method(penalty=3), "penalty is a int"),
    (method(lam=NAN), "lam is nan"),
    (method(seeds=[[0]]), "has the seeds [[0]]"),
    ({1: 2, "b": 3}, "unknown settings ['1', 'b']"),
]
TEXTS: list[tuple[str, str]] = [
    ("", "has the entry None"),
    ("[]", "is empty"),
    ("- 3", "has the entry 3"),
    ("a: [", "is no YAML"),
    ("\x00", "is no YAML"),
    (TEXT + "eps: 0.3\n", "has the key 'eps' again"),
    (TEXT.replace("kind: pgd", "kind: pgd\n  lr: 1\n  lr: 2"), "has the key 'lr' again"),
    (TEXT + "flip: !!python/object/apply:os.system ['true']\n", "is no YAML"),
    (TEXT + "title: !!python/name:os.system\n", "is no YAML"),
    (TEXT + "train: !!int many\n", "is no YAML"),
    (TEXT + "title: 2024-99-99\n", "is no YAML"),
    (TEXT + "--- {}\n", "is no YAML"),
    (TEXT + "title: &a [*a]\n", "stands for more than"),
    (
        "a0: &a0 [x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        "stands for more than",
    ),
    ("[" * 20000, "is no YAML"),
    ("x: " + "9" * 10**6, "allowed: at most 1000000"),
    ("x: " + "9" * 10**5, "is no YAML|at least name"),
]


def refused_plan(
    text: str | bytes, says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = folder / "plan.yaml", folder / "a" / "out"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    message = refusal_of(["compare", str(path), "--output", str(output)], capsys)
    assert any(part in message for part in says.split("|")), message
    assert len(message) < 2000
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize(("changes", "says"), PLANS, ids=lambda value: str(value)[:40])
def test_plans(
    changes: dict[Any, Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused_plan(yaml.safe_dump({**PLAN, **changes}), says, tmp_path, capsys)


@pytest.mark.parametrize(("text", "says"), TEXTS, ids=lambda value: ascii(value)[-40:])
def test_texts_that_are_no_plan(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused_plan(text, says, tmp_path, capsys)


def test_bytes_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused_plan(b"\xff\xfe\xff", "is no YAML", tmp_path, capsys)


def test_members_of_an_archive_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(
        zipped(("x_train.npy", npy(X)), ("y_train.npy", npy(Y)), ("../out.npy", npy(X)))
    )
    assert len(load_npz(path).y_train) == 4
    assert list(tmp_path.parent.glob("out*")) == []


WRITERS: dict[str, tuple[list[str], str]] = {
    "train": (["train", "--epochs", "1", "--output"], ".pt"),
    "a checkpoint": (["train", "--epochs", "1", "--checkpoint-dir"], ""),
    "tune": (["tune", "--minutes", "0.001", "--epochs", "1", "--output"], ".json"),
    "the state of tune": (["tune", "--minutes", "0.001", "--epochs", "1", "--state-dir"], ""),
    "evaluate": (["evaluate", "--weights", "w.pt", "--output"], ".json"),
    "examples": (["evaluate", "--weights", "w.pt", "--save-adversarial"], ".npz"),
    "the state of evaluate": (["evaluate", "--weights", "w.pt", "--state-dir"], ""),
    "masking": (["masking", "--weights", "w.pt", "--output"], ".md"),
    "flatness": (["flatness", "--weights", "w.pt", "--output"], ".csv"),
    "plot": (["plot", "surface", "--weights", "w.pt", "--output"], ".png"),
    "numbers": (["plot", "surface", "--weights", "w.pt", "--numbers"], ".csv"),
    "demo": (["demo", "--epochs", "1", "--output"], ""),
    "compare": (["compare", "plan.yaml", "--output"], ""),
}


@pytest.mark.parametrize("place", ["/proc/none", "file/none", "a" * 300, "folder.d"])
@pytest.mark.parametrize("name", WRITERS)
def test_places_that_cannot_be_written(
    name: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before the work, which would print something or leave a file."""
    arguments, ending = WRITERS[name]
    for file in ("file", "folder.d"):
        Path(file).write_text("")
    if ending:
        Path(f"folder.d{ending}").mkdir()
    Path("plan.yaml").write_text(TEXT)
    torch.save(digits_cnn(0).state_dict(), "w.pt")
    before = sorted(Path.cwd().rglob("*"))
    message = refusal_of([*arguments, f"{place}{ending}"], capsys)
    assert Path(place).name in message
    assert "allowed: " in message
    assert sorted(Path.cwd().rglob("*")) == before
