"""Augmentations of a batch of images, drawn from an explicit generator.

An augmentation is any callable (batch, generator) -> batch of the same shape; it is applied before
the ascent, so that the ball is centred on the augmented image. One that says where each pixel went
(`InvertibleAugmentation`) lets the ascent go on from epoch to epoch, though each epoch sees another
view of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from art_lfr.core.arguments import check_integer
from art_lfr.core.geometry import Box
from art_lfr.core.samples import check_inputs
from art_lfr.errors import UsageError, WrongTypeError

Augmentation: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]


class View(Protocol):
    """What one draw of an augmentation does to a batch: moves its pixels, and moves them back.

    Both are linear: they take images, and perturbations of images, of shape (N, C, H, W).
    """

    def apply(self, x: Tensor) -> Tensor:
        """The augmented batch. Pixels that come from nowhere are 0."""
        ...

    def undo(self, moved: Tensor, original: Tensor) -> Tensor:
        """`moved` in the frame of the originals; what the view leaves out is that of `original`."""
        ...


@runtime_checkable
class InvertibleAugmentation(Protocol):
    """An augmentation that says what it has done."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The augmented batch."""
        ...

    def with_view(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, View | None]:
        """The augmented batch, and what has been done to it; None where that cannot be undone."""
        ...


def _with_view(
    augment: Augmentation, x: Tensor, generator: torch.Generator
) -> tuple[Tensor, View | None]:
    """As `InvertibleAugmentation.with_view`, for any augmentation."""
    if not isinstance(augment, InvertibleAugmentation):
        return augment(x, generator), None
    pair: object = augment.with_view(x, generator)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise WrongTypeError(
            f"augment.with_view returned a {type(pair).__name__}; allowed: the augmented batch and "
            "its view, or None"
        )
    changed, view = pair
    if view is not None and not all(callable(getattr(view, n, None)) for n in ("apply", "undo")):
        raise WrongTypeError(
            f"augment.with_view returned the view {view!r:.60}; allowed: one with `apply` and "
            "`undo`, or None"
        )
    return changed, view


def augmented(
    augment: Augmentation, x: Tensor, generator: torch.Generator, box: Box
) -> tuple[Tensor, View | None]:
    """The augmented batch, and what has been done to it where that can be undone.

    Raises ValueError where it is no valid batch of the same shape.
    """
    changed, view = _with_view(augment, x, generator)
    if not isinstance(changed, Tensor):
        raise WrongTypeError(
            f"augment returned a {type(changed).__name__}; allowed: a tensor like the batch"
        )
    if changed.shape != x.shape:
        raise UsageError(
            f"augment returned shape {tuple(changed.shape)} for {tuple(x.shape)}; allowed: the "
            "same shape"
        )
    check_inputs("what augment returned", changed, box)
    return changed, view


@dataclass(frozen=True)
class _Flipped:
    """Some images of a batch are mirrored; `flip` (N,) says which."""

    flip: Tensor

    def apply(self, x: Tensor) -> Tensor:
        return torch.where(self.flip.to(x.device)[:, None, None, None], x.flip(-1), x)

    def undo(self, moved: Tensor, original: Tensor) -> Tensor:
        return self.apply(moved)


class RandomFlip:
    """Mirror each image of a batch (N, C, H, W) left to right with probability 1/2."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Mirror some."""
        return self.with_view(x, generator)[0]

    def with_view(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, View]:
        """Mirror some, and say which."""
        view = _Flipped(torch.rand(len(x), generator=generator) < 0.5)
        return view.apply(x), view


random_flip = RandomFlip()


@dataclass(frozen=True)
class _Cropped:
    """Each image is a window of the padded one, which begins at its offsets, (2, N)."""

    padding: int
    offsets: Tensor

    def apply(self, x: Tensor) -> Tensor:
        sample, rows, columns = self._places(x)
        # Indexing with broadcast (N, H, W) puts the channels last.
        return self._padded(x)[sample, :, rows, columns].movedim(-1, 1)

    def undo(self, moved: Tensor, original: Tensor) -> Tensor:
        padded, (sample, rows, columns) = self._padded(original), self._places(moved)
        padded[sample, :, rows, columns] = moved.movedim(1, -1)
        end = self.padding + original.shape[-2], self.padding + original.shape[-1]
        return padded[:, :, self.padding : end[0], self.padding : end[1]]

    def _padded(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, [self.padding] * 4)

    def _places(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each pixel of the windows its image, row and column in the padded batch."""
        n, _, height, width = x.shape
        offsets = self.offsets.to(x.device)
        rows = offsets[0][:, None] + torch.arange(height, device=x.device)
        columns = offsets[1][:, None] + torch.arange(width, device=x.device)
        sample = torch.arange(n, device=x.device)[:, None, None]
        return sample, rows[:, :, None], columns[:, None, :]


class RandomCrop:
    """Pad each image of a batch (N, C, H, W) by `padding` zeros, crop it back at a random place."""

    def __init__(self, padding: int = 4) -> None:
        check_integer("padding", padding, low=0)
        self.padding = padding

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one offset per image and crop."""
        return self.with_view(x, generator)[0]

    def with_view(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, View]:
        """Draw one offset per image and crop, and say where."""
        offsets = torch.randint(0, 2 * self.padding + 1, (2, len(x)), generator=generator)
        view = _Cropped(self.padding, offsets)
        return view.apply(x), view


@dataclass(frozen=True)
class _Composed:
    """Several views, one after another."""

    views: tuple[View, ...]

    def apply(self, x: Tensor) -> Tensor:
        for view in self.views:
            x = view.apply(x)
        return x

    def undo(self, moved: Tensor, original: Tensor) -> Tensor:
        frames, frame = [], original
        for view in self.views:
            frames.append(frame)
            frame = view.apply(frame)
        for view, frame in zip(reversed(self.views), reversed(frames), strict=True):
            moved = view.undo(moved, frame)
        return moved


class Compose:
    """Apply several augmentations in order: `Compose(RandomCrop(4), random_flip)`.

    It can be undone where all of them can.
    """

    def __init__(self, *augmentations: Augmentation) -> None:
        for augmentation in augmentations:
            if not callable(augmentation):
                raise WrongTypeError(
                    f"augmentations has {augmentation!r}; allowed: callables (batch, generator)"
                )
        self.augmentations = augmentations

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Apply them."""
        return self.with_view(x, generator)[0]

    def with_view(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, View | None]:
        """Apply them, and say what each has done."""
        views: list[View | None] = []
        for augmentation in self.augmentations:
            x, view = _with_view(augmentation, x, generator)
            views.append(view)
        undone = tuple(view for view in views if view is not None)
        return x, _Composed(undone) if len(undone) == len(views) else None


# By the names that commands take.
BY_NAME: dict[str, Augmentation | None] = {
    "none": None,
    "flip": random_flip,
    "crop-flip": Compose(RandomCrop(4), random_flip),
}
