"""A model of RobustBench's zoo, or any module, as an ART classifier ready for fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from art.estimators.classification import PyTorchClassifier
from robustbench.model_zoo import model_dicts
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
from robustbench.utils import load_model
from torch import nn

from art_lfr.core.arguments import check_choice, check_integer, check_number, check_seed
from art_lfr.core.modes import device_of, frozen, mode
from art_lfr.core.randomness import preserved_random_state
from art_lfr.errors import UsageError, WrongTypeError

SHAPES = {"cifar10": (3, 32, 32), "cifar100": (3, 32, 32), "imagenet": (3, 224, 224)}


def to_art(
    model_or_name: nn.Module | str,
    *,
    dataset: str = "cifar10",
    threat_model: str = "Linf",
    model_dir: str | Path = "./models",
    input_shape: Sequence[int] | None = None,
    new_classes: int | None = None,
    learning_rate: float = 0.01,
    weight_decay: float = 5e-4,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> PyTorchClassifier:
    """An ART classifier on images in [0, 1], with cross-entropy and SGD with momentum 0.9.

    Models of the zoo have their normalisation inside, so the classifier has no preprocessing and
    eps is in units of [0, 1] everywhere. Three lines fine-tune one::

        classifier = to_art("Carmon2019Unlabeled", model_dir="./models")
        trainer = AdversarialTrainerLFRPyTorch(classifier, eps=8 / 255)
        trainer.fit(x, y, nb_epochs=5, batch_size=128)

    Args:
        model_or_name: The name of a model in the zoo, which is loaded from `model_dir` or else
            downloaded by RobustBench; or a module from images in [0, 1] to logits.
        dataset: "cifar10", "cifar100" or "imagenet".
        threat_model: "Linf", "L2", "corruptions" or "corruptions_3d", for a name.
        model_dir: Where RobustBench keeps checkpoints, `<model_dir>/<dataset>/<threat>/<name>.pt`.
        input_shape: Shape of one image; None: that of the data set, 224x224 for ImageNet.
        new_classes: Replace the last linear layer by a fresh one with this many outputs.
        learning_rate: Of SGD.
        weight_decay: Of SGD.
        device: "cpu" or "cuda", with or without an index.
        seed: Seed of a fresh layer.

    Raises:
        ValueError, TypeError: For bad arguments, naming the parameter: an unknown name among
            others, or a model whose last layer cannot be replaced.
    """
    zoo = zoo_of(dataset, threat_model)
    check_integer("new_classes", new_classes, low=2, optional=True)
    check_number("learning_rate", learning_rate, low_allowed=False)
    check_number("weight_decay", weight_decay)
    check_seed("seed", seed)
    if isinstance(model_or_name, str):
        check_choice("model_or_name", model_or_name, tuple(zoo))
        model = load_model(model_or_name, str(model_dir), dataset, threat_model)
    elif isinstance(model_or_name, nn.Module):
        model = model_or_name
    else:
        raise WrongTypeError(
            f"model_or_name is a {type(model_or_name).__name__}; allowed: a name of the zoo or a "
            "torch.nn.Module"
        )
    place = torch.device(device)
    model = model.to(place)
    shape = SHAPES[dataset] if input_shape is None else tuple(input_shape)
    if new_classes is not None:
        replace_head(model, shape, new_classes, seed)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise UsageError(
            "model_or_name has no parameter that requires gradients; allowed: a model to train"
        )
    with torch.cuda.device(place if place.type == "cuda" else -1):
        return PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            optimizer=torch.optim.SGD(
                trainable, lr=learning_rate, momentum=0.9, weight_decay=weight_decay
            ),
            input_shape=shape,
            nb_classes=_logits(model, shape).shape[1],
            clip_values=(0.0, 1.0),
            device_type="gpu" if place.type == "cuda" else "cpu",
        )


def zoo_of(dataset: str, threat_model: str) -> dict[str, Any]:
    """The models of a data set and a threat model, by name; ValueError for any other.

    A new model may be put in.
    """
    check_choice("dataset", dataset, SHAPES)
    check_choice("threat_model", threat_model, [threat.value for threat in ThreatModel])
    zoo: dict[str, Any] = model_dicts[BenchmarkDataset(dataset)].setdefault(
        ThreatModel(threat_model), {}
    )
    return zoo


def replace_head(model: nn.Module, shape: Sequence[int], classes: int, seed: int = 0) -> None:
    """Put a fresh linear layer in place of the one that the logits come from.

    Raises ValueError where the output of the model is not that of a linear layer.
    """
    last: list[tuple[str, nn.Linear, torch.Tensor]] = []
    hooks = [
        module.register_forward_hook(
            lambda module, _, output, name=name: last.append((name, module, output))
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        logits = _logits(model, shape)
    finally:
        for hook in hooks:
            hook.remove()
    name, old, output = last[-1] if last else ("", None, None)
    if old is None or output is None or not name or not torch.equal(output, logits):
        raise UsageError(
            "new_classes needs a model whose logits are the output of a torch.nn.Linear; allowed "
            "here: None (replace the last layer before to_art)"
        )
    with preserved_random_state(torch.device("cpu")):
        torch.manual_seed(seed)
        new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new.to(old.weight.device, old.weight.dtype))


def _logits(model: nn.Module, shape: Sequence[int]) -> torch.Tensor:
    # Two images: some layers squeeze a batch of one.
    x = torch.full((2, *shape), 0.5)
    with torch.no_grad(), mode(model, training=False), frozen(model):
        logits: Any = model(x.to(device_of(model, x)))
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
        raise UsageError(
            "model_or_name gives no logits of shape (N, classes); allowed: a classifier of images"
        )
    return logits
