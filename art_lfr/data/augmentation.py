"""Augmentations of a batch of images, drawn from an explicit generator.

An augmentation is any callable (batch, generator) -> batch of the same shape; it is applied before
the ascent, so that the ball is centred on the augmented image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from art_lfr.core.arguments import check_integer
from art_lfr.core.geometry import Box
from art_lfr.core.samples import check_inputs
from art_lfr.errors import UsageError

Augmentation: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]


def augmented(augment: Augmentation, x: Tensor, generator: torch.Generator, box: Box) -> Tensor:
    """The augmented batch; ValueError where it is no valid batch of the same shape."""
    changed = augment(x, generator)
    if changed.shape != x.shape:
        raise UsageError(
            f"augment returned shape {tuple(changed.shape)} for {tuple(x.shape)}; allowed: the "
            "same shape"
        )
    check_inputs("what augment returned", changed, box)
    return changed


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image of a batch (N, C, H, W) left to right with probability 1/2."""
    flip = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(flip.to(x.device)[:, None, None, None], x.flip(-1), x)


class RandomCrop:
    """Pad each image of a batch (N, C, H, W) by `padding` zeros, crop it back at a random place."""

    def __init__(self, padding: int = 4) -> None:
        check_integer("padding", padding, low=0)
        self.padding = padding

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one offset per image and crop."""
        n, _, height, width = x.shape
        padded = nn.functional.pad(x, [self.padding] * 4)
        offsets = torch.randint(0, 2 * self.padding + 1, (2, n), generator=generator)
        offsets = offsets.to(x.device)
        rows = offsets[0][:, None] + torch.arange(height, device=x.device)
        columns = offsets[1][:, None] + torch.arange(width, device=x.device)
        sample = torch.arange(n, device=x.device)[:, None, None]
        # Indexing with broadcast (N, H, W) puts the channels last.
        return padded[sample, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


class Compose:
    """Apply several augmentations in order: `Compose(RandomCrop(4), random_flip)`."""

    def __init__(self, *augmentations: Augmentation) -> None:
        self.augmentations = augmentations

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Apply them."""
        for augmentation in self.augmentations:
            x = augmentation(x, generator)
        return x


# By the names that commands take.
BY_NAME: dict[str, Augmentation | None] = {
    "none": None,
    "flip": random_flip,
    "crop-flip": Compose(RandomCrop(4), random_flip),
}
