"""What bfloat16 does to the gradient of the penalty in the weights, for balls of several radii.

    python benchmarks/speed/narrow_types.py DATA.npz

The published CIFAR-10 network, 256 training images, the point that two steps find in float32. Off
by: 1 minus the cosine with the gradient in float32, with all layers narrow and with the first one
in float32.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from art_lfr.core.criterion import Criterion
from art_lfr.core.geometry import Box
from art_lfr.core.precision import NarrowModel
from art_lfr.core.settings import LFRSettings
from art_lfr.data.files import load_npz
from art_lfr.models import load_network
from art_lfr.penalties import LocalFlatness, LossView

WEIGHTS = Path(__file__).parents[2] / "networks" / "cifar10.safetensors"


def main(data: Path) -> None:
    """Print a line for each eps."""
    torch.set_num_threads(1)
    network = load_network(WEIGHTS).eval()
    images = load_npz(data)
    x, y = torch.from_numpy(images.x_train[:256]), torch.from_numpy(images.y_train[:256])
    penalty, box = LocalFlatness(), Box.from_bounds((0.0, 1.0), x)
    for of_255 in (8, 4, 2, 1):
        settings = LFRSettings(eps=of_255 / 255, steps=2)

        def view(model: nn.Module, settings: LFRSettings = settings) -> LossView:
            return LossView(model, Criterion(), box, settings)

        start = penalty.start(view(network).ball, x, torch.Generator().manual_seed(0))
        found = penalty.search(view(network), x, y, start)

        def gradient(model: nn.Module, found: object = found) -> Tensor:
            network.zero_grad()
            sum(w * v for w, v in penalty.parts(view(model), x, y, found)).mean().backward()
            return torch.cat([p.grad.flatten() for p in network.parameters()])

        full, narrow = gradient(network), NarrowModel(network, torch.bfloat16)
        off = []
        for context in (nullcontext(), narrow.first_layer_in_full()):
            with context:
                off.append(1 - float(torch.cosine_similarity(gradient(narrow), full, dim=0)))
        print(f"eps {of_255}/255: all layers {off[0]:.3f}, all but the first {off[1]:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
