"""Augmentations: what they do to a batch, and what they say of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from art_lfr.core.geometry import Box
from art_lfr.data import Augmentation, Compose, InvertibleAugmentation, RandomCrop, random_flip
from art_lfr.data.augmentation import augmented

INVERTIBLE = {
    "flip": random_flip,
    "crop": RandomCrop(2),
    "no padding": RandomCrop(0),
    "both": Compose(RandomCrop(2), random_flip),
    "the other way round": Compose(random_flip, RandomCrop(2)),
    "crop of a crop": Compose(RandomCrop(1), random_flip, RandomCrop(2)),
    "nothing": Compose(),
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(8, 2, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("augment", INVERTIBLE.values(), ids=INVERTIBLE)
def test_the_view_moves_pixels_as_the_augmentation_does(augment: Augmentation, x: Tensor) -> None:
    changed, view = augmented(augment, x, generator(), Box.from_bounds((0.0, 1.0), x))
    assert view is not None
    assert torch.equal(changed, augment(x, generator()))
    assert torch.equal(changed, view.apply(x))
    assert torch.equal(view.apply(2 * x), 2 * changed)  # linear: perturbations move as images do


@pytest.mark.parametrize("augment", INVERTIBLE.values(), ids=INVERTIBLE)
def test_what_is_seen_comes_back_and_the_rest_stays(augment: Augmentation, x: Tensor) -> None:
    _, view = augmented(augment, x, generator(), Box.from_bounds((0.0, 1.0), x))
    assert view is not None
    seen = view.undo(view.apply(torch.ones_like(x)), torch.zeros_like(x)).bool()
    back = view.undo(view.apply(x), torch.full_like(x, -1.0))
    assert torch.equal(back[seen], x[seen])
    assert bool((back[~seen] == -1).all())
    assert seen.float().mean() > 0.3
    # Nothing that was never in the original comes back: the padding is dropped.
    noisy = view.undo(torch.full_like(x, 5.0), torch.zeros_like(x))
    assert torch.equal(noisy != 0, seen)


def test_one_that_does_not_say_cannot_be_undone(x: Tensor) -> None:
    def invert(batch: Tensor, generator: torch.Generator) -> Tensor:
        return 1 - batch

    box = Box.from_bounds((0.0, 1.0), x)
    for augment in (invert, Compose(random_flip, invert)):
        changed, view = augmented(augment, x, generator(), box)
        assert view is None
        assert torch.equal(changed, augment(x, generator()))
    assert not isinstance(invert, InvertibleAugmentation)
    assert isinstance(random_flip, InvertibleAugmentation)


def test_a_composition_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="augmentations has 4; allowed: callables"):
        Compose(random_flip, 4)  # type: ignore[arg-type]
