"""A trained classifier as a leaderboard entry: `export`, and `register` for this process."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from art.estimators.classification import PyTorchClassifier
from robustbench.model_zoo.enums import ThreatModel
from robustbench.utils import ACC_FIELDS, ModelInfo
from torch import nn

from art_lfr.art.classifier import ClassifierAdapter
from art_lfr.attacks.target import UnitBox
from art_lfr.core.arguments import check_integer, check_number
from art_lfr.core.geometry import Box
from art_lfr.errors import UsageError, WrongTypeError
from art_lfr.models import NetworkInfo, Preprocessed, load_network, network_info
from art_lfr.models.files import factory_of
from art_lfr.robustbench.entry import (
    EntryModel,
    check_factory,
    entry_source,
    per_cent,
    request_text,
)
from art_lfr.robustbench.zoo import zoo_of
from art_lfr.storage.files import as_path, make_directory, write_together

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Stands where the zoo has the id of a download; without one `load_model` takes no local file.
UPLOADED_LATER = "put the id of the uploaded checkpoint here"
# Names that RobustBench treats in a way of their own.
SPECIAL = ("Standard", "Kireev2021Effectiveness")


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where the parts of an exported entry are."""

    checkpoint: Path
    model_info: Path
    entry: Path
    request: Path


def export(
    classifier: PyTorchClassifier | nn.Module | str | Path,
    name: str,
    dataset: str,
    threat_model: str,
    directory: str | Path,
    *,
    title: str,
    authors: str,
    venue: str,
    link: str,
    architecture: str,
    eps: float | None = None,
    clean_accuracy: float,
    robust_accuracy: float,
    factory: Callable[[], nn.Module] | None = None,
    additional_data: bool = False,
    number_forward_passes: int = 1,
    footnote: str | None = None,
) -> Entry:
    """Write a leaderboard entry that `robustbench.utils.load_model` loads by name.

    `directory` then holds::

        models/<dataset>/<threat_model>/<name>.pt         the weights, tensors only
        model_info/<dataset>/<threat_model>/<name>.json   the entry of the leaderboard
        entry.py                                          registers the model when imported
        request.md                                        the text of a new-model request

    In a fresh process, `import entry` there and `load_model(name, "models", dataset,
    threat_model)` give the same logits. Preprocessing by mean and standard deviation, and
    `clip_values` other than (0, 1), are folded into the model, whose inputs are images in [0, 1].

    Args:
        classifier: An ART classifier, a module from images in [0, 1] to logits, or a file that says
            what it is (see `art_lfr.models.load_network`).
        name: As in the zoo, e.g. "Xu2020Local": letters, digits, "_" and "-".
        dataset: "cifar10", "cifar100" or "imagenet".
        threat_model: "Linf", "L2", "corruptions" or "corruptions_3d".
        directory: Made where missing; files of an earlier export of this name are replaced, all
            of them or, where it fails, none.
        title: Title of the paper.
        authors: Their names, with commas between.
        venue: E.g. "ICIP 2020" (ends with the year), "N/A", or "" for unpublished.
        link: Address of the paper.
        architecture: As the table shows it, e.g. "ResNet-18".
        eps: Radius of the evaluation, > 0, for images in [0, 1]; written as "8/255" where it is.
            None: that of the file.
        clean_accuracy: Share in [0, 1].
        robust_accuracy: Share in [0, 1], under AutoAttack or the corruptions.
        factory: A class or function without arguments, in a module that can be imported, that
            makes the network; None: the class of the network itself, or what the file says.
        additional_data: Whether more data than the training set was used.
        number_forward_passes: For one prediction.
        footnote: Printed with the entry.

    Raises:
        ValueError, TypeError: For bad arguments, naming the parameter, before anything is written.
    """
    check_entry_name(name, dataset, threat_model)
    if isinstance(classifier, str | Path) and (info := network_info(classifier)) is not None:
        eps = info.eps if eps is None else eps
        factory = factory_of(classifier, info) if factory is None else factory
    check_number("eps", eps, low_allowed=False)
    assert eps is not None
    for key, share in (("clean_accuracy", clean_accuracy), ("robust_accuracy", robust_accuracy)):
        check_number(key, share)
        if share > 1:
            raise UsageError(f"{key} is {share!r}; allowed: a share from 0 to 1")
    check_integer("number_forward_passes", number_forward_passes, low=1)
    if venue not in ("", "N/A") and not re.search(r"\b(19|20)\d\d$", venue):
        raise UsageError(
            f"venue is {venue!r}; allowed: a text that ends with the year, 'N/A' or ''"
        )
    model = entry_model(classifier)
    factory = type(model.network) if factory is None else factory
    check_factory(factory, model.network)
    # One field, or for corruptions several, of which the last is the accuracy.
    fields = ACC_FIELDS[ThreatModel(threat_model)]
    robust_field = fields if isinstance(fields, str) else fields[-1]
    information = dataclasses.asdict(
        ModelInfo(
            link=link,
            name=title,
            authors=authors,
            additional_data=bool(additional_data),
            number_forward_passes=int(number_forward_passes),
            dataset=dataset,
            venue=venue,
            architecture=architecture,
            # A string, as the leaderboard's own entries have it, whatever the annotation says.
            eps=None if threat_model.startswith("corruptions") else eps_text(eps),
            clean_acc=per_cent(clean_accuracy),
            footnote=footnote,
            **{robust_field: per_cent(robust_accuracy)},
        )
    )
    root = as_path("directory", directory)
    make_directory(root, "directory")
    # RobustBench looks for the weights of "corruptions_3d" beside those of "corruptions".
    place = Path(dataset) / threat_model.removesuffix("_3d")
    entry = Entry(
        checkpoint=root / "models" / place / f"{name}.pt",
        model_info=root / "model_info" / place / f"{name}.json",
        entry=root / "entry.py",
        request=root / "request.md",
    )
    for path in (entry.checkpoint, entry.model_info):
        path.parent.mkdir(parents=True, exist_ok=True)
    state = {"state_dict": model.safe_state()}
    # Together: weights beside the figures of an older export would be a false claim.
    write_together(
        {
            entry.checkpoint: lambda file: torch.save(state, file),
            entry.model_info: json.dumps(information, indent=2),
            entry.request: request_text(name, threat_model, information),
            entry.entry: entry_source(name, dataset, threat_model, title, factory, model),
        }
    )
    return entry


def register(
    name: str, dataset: str, threat_model: str, constructor: Callable[[], nn.Module]
) -> None:
    """Put a model into the zoo of this process; `load_model` then loads its checkpoint by name.

    `constructor` makes the module without arguments; give `EntryModel`'s keys for a checkpoint of
    `export` (its entry.py does). Registering the same constructor again changes nothing. Raises
    ValueError for a name that the zoo or timm has.
    """
    zoo = zoo_of(dataset, threat_model)
    known = zoo.get(name)
    if known is not None and known["model"] is constructor:
        return
    check_entry_name(name, dataset, threat_model)
    if not callable(constructor):
        raise WrongTypeError(
            f"constructor is a {type(constructor).__name__}; allowed: a function without arguments "
            "that makes a module"
        )
    zoo[name] = {"model": constructor, "gdrive_id": UPLOADED_LATER}


def check_entry_name(name: str, dataset: str, threat_model: str) -> None:
    """Raise ValueError for a name that RobustBench would not load from the entry's checkpoint."""
    zoo = zoo_of(dataset, threat_model)
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise UsageError(
            f"name is {name!r}; allowed: letters, digits, '_' and '-', first a letter or digit"
        )
    for special in SPECIAL:
        if special in name:
            raise UsageError(
                f"name is {name!r}; allowed: a name without {special!r}, which RobustBench loads "
                "in a way of its own"
            )
    lower = f"{name.lower().replace('-', '_')}_{dataset}_{threat_model.lower()}"
    if timm.is_model(lower) or (name in zoo and zoo[name]["gdrive_id"] != UPLOADED_LATER):
        raise UsageError(
            f"name is {name!r}, which {'timm' if timm.is_model(lower) else 'the zoo'} has already; "
            "allowed: a new name"
        )


def entry_model(classifier: object) -> EntryModel:
    """The model on images in [0, 1], clip_values and standardisation folded in.

    Raises TypeError for anything but a module, an ART classifier or a file of a network, and
    ValueError for preprocessing that is no mean and standard deviation, one number or one for each
    channel.
    """
    if isinstance(classifier, nn.Module):
        return EntryModel(classifier, torch.ones(()), torch.zeros(()))
    if isinstance(classifier, str | Path):
        info, network = network_info(classifier) or NetworkInfo(), load_network(classifier)
        box = Box.from_bounds(info.bounds, torch.zeros(1, *(info.input_shape or ())))
        mean, std = torch.zeros(()), torch.ones(())
        if isinstance(network, Preprocessed):
            mean, std, network = network.mean, network.std, network.network
    else:
        adapter = ClassifierAdapter(classifier)
        network, box = adapter.network, adapter.box(torch.zeros(1, *adapter.classifier.input_shape))
        standard = adapter.standardisation() or (np.float32(0), np.float32(1))
        mean, std = map(torch.as_tensor, standard)
    unit_box = UnitBox.of(box, "export", "a module on images in [0, 1]")
    # network((low + width * unit - mean) / std)
    shift = (unit_box.low - mean) / std
    return EntryModel(network, (unit_box.width / std).expand_as(shift).clone(), shift)


def eps_text(eps: float) -> str:
    """ "8/255" for whole grey levels, else the number."""
    levels = 255 * eps
    if abs(levels - round(levels)) < 1e-6 * max(1.0, levels) and round(levels) > 0:
        return f"{round(levels)}/255"
    return f"{eps:g}"
