"""A user's model in the one form that everything works on: is it a module or an ART classifier?"""

from __future__ import annotations

from torch import nn

from art_lfr.art.module import BoundsChoice, ModelAdapter
from art_lfr.core.criterion import LossLike


def adapter_of(
    model: object, *, bounds: BoundsChoice = "auto", loss: LossLike = None, name: str = "model"
) -> ModelAdapter:
    """The adapter of a module, or of an ART classifier with its own loss and `clip_values`.

    Raises TypeError for anything else, and ValueError for `bounds` or a `loss` that a classifier
    has otherwise.
    """
    if isinstance(model, nn.Module):
        return ModelAdapter(model, bounds=bounds, loss=loss, name=name)
    # Here, not above: a plain module does without ART and its seconds of import.
    from art_lfr.art.classifier import ClassifierAdapter

    adapter = ClassifierAdapter(model, name, also="a torch.nn.Module, or an ")
    adapter.check_loss(loss)
    adapter.check_bounds(bounds)
    return adapter
