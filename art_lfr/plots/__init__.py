"""The paper's figures for any classifier: what is measured, and apart from it how it is drawn.

Each measurement returns a small frozen dataclass with `to_frame()` and `summary()`; each drawing
takes several of them by name, so that networks stand side by side. Accuracy against eps is in
`art_lfr.evaluation`: `accuracy_curve` and `curve_figure`.
"""

from art_lfr.plots.drawing import (
    gradients_figure,
    save_figure,
    surface_figure,
    vulnerability_figure,
)
from art_lfr.plots.gradients import GradientMaps, alignment, gradient_maps, hoyer_sparsity
from art_lfr.plots.surface import LossSurface, loss_surface
from art_lfr.plots.vulnerability import Vulnerability, vulnerability

__all__ = [
    "GradientMaps",
    "LossSurface",
    "Vulnerability",
    "alignment",
    "gradient_maps",
    "gradients_figure",
    "hoyer_sparsity",
    "loss_surface",
    "save_figure",
    "surface_figure",
    "vulnerability",
    "vulnerability_figure",
]
