"""The table of data sets, and what is taken from it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from art_lfr.core.names import MODELS
from art_lfr.data.recipes import RECIPES, Recipe, recipe_for

ROOT = Path(__file__).parents[2]
DEFAULTS_PAGE = ROOT / "docs" / "defaults.md"


def test_what_is_not_given_is_of_the_row() -> None:
    assert recipe_for("digits") == RECIPES["digits"]
    changed = recipe_for("MNIST", eps=0.2, model="Small_CNN", optimizer="SGD", epochs=None)
    assert (changed.model, changed.epochs, changed.optimizer) == ("small-cnn", 5, "sgd")
    assert changed.objective() == pytest.approx(
        {"lam": 0.1, "radius": 0.2 / 6, "warmup_epochs": 1.5}
    )
    # A weight that is a multiple of eps belongs to gradient norms; a short run warms up briefly.
    assert recipe_for("mnist", epochs=3).objective("cure") == {"warmup_epochs": 1.0}
    for name, recipe in RECIPES.items():
        assert recipe.data == name
        assert recipe.model in MODELS
        assert recipe_for(name, augmentation=recipe.augmentation) == recipe


def test_another_norm_has_an_eps_of_its_own() -> None:
    with pytest.raises(ValueError, match="eps is missing; digits has one for norm inf only"):
        recipe_for("digits", norm="L2")
    assert recipe_for("digits", norm="L2", eps=0.5).objective() == {"warmup_epochs": 4.0}
    assert recipe_for("digits", norm="Linf") == RECIPES["digits"]
    assert recipe_for("digits", norm="Linf").objective()["lam"] == pytest.approx(0.1)


def test_own_data_has_no_row() -> None:
    with pytest.raises(ValueError, match=r"eps is missing; 'mnist\.npz' is your own data"):
        recipe_for("mnist.npz", model="small-cnn")
    with pytest.raises(ValueError, match="model is missing"):
        recipe_for("mnist.npz", eps=0.3)
    assert recipe_for("mnist.npz", eps=0.3, model="a:b").objective() == {"warmup_epochs": 2.0}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "small-cn"}, "or module.path:factory; did you mean 'small-cnn'"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; allowed: 'sgd'"),
        ({"optimizer": "adam"}, "lr is missing; that of digits, 0.1, is for sgd"),
        ({"augmentation": "crop"}, "did you mean 'crop-flip'"),
        ({"norm": "3"}, "norm is '3'"),
        ({"eps": -1.0}, "eps is -1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_wrong_settings(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        recipe_for("digits", **given)
    assert words in str(refused.value)


# How docs/defaults.md writes a setting that is not shown as it is.
WRITTEN = {
    ("eps", 8 / 255): "8/255",
    ("radius", None): "default",
    ("radius", 1 / 6): "eps / 6",
    ("lam", 0.5): "eps / 2",
    ("lam", 1.0): "eps",
}


def test_the_documentation_shows_the_table() -> None:
    lines = DEFAULTS_PAGE.read_text().splitlines()
    names = [field.name for field in fields(Recipe) if field.name not in ("data", "source")]
    assert "| | " + " | ".join(f"`{name}`" for name in RECIPES) + " |" in lines
    for name in names:
        values = [getattr(recipe, name) for recipe in RECIPES.values()]
        cells = [WRITTEN.get((name, v), v if isinstance(v, str) else f"{v}") for v in values]
        assert f"| `{name}` | " + " | ".join(cells) + " |" in lines
    for name, recipe in RECIPES.items():
        assert f"- `{name}`: {recipe.source}" in lines
        source = ROOT / recipe.source.partition(",")[0]
        assert source.is_file() or recipe.source.startswith("not studied: ")
