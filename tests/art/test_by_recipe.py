"""The classifier of a recipe: its optimizer, and the device that it is on."""

from __future__ import annotations

import pytest
import torch

from art_lfr.art.by_recipe import device_type, make_classifier
from art_lfr.data import digits, recipe_for
from art_lfr.models import digits_cnn


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_the_optimizer(name: str, kind: type[torch.optim.Optimizer]) -> None:
    recipe = recipe_for("digits", optimizer=name, lr=0.01, weight_decay=0.2)
    classifier = make_classifier(digits_cnn(0), digits(), recipe, 10, "cpu")
    assert type(classifier.optimizer) is kind
    (group,) = classifier.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.2)
    assert group.get("momentum", 0.9) == 0.9


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert [device_type(name) for name in ("cpu", None, "cuda")] == ["cpu", "gpu", "gpu"]
    assert chosen == []
    assert device_type("cuda:1") == "gpu"
    assert chosen == [1]
    with pytest.raises(ValueError, match="device is 'cuda:2'; allowed: a GPU that torch finds"):
        device_type("cuda:2")
