"""load_entry.py NAME DATASET THREAT: loads an exported entry by its name, as a stranger would.

Run in the folder of the export. Reads images.npy there and writes logits.npy.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

sys.path.insert(0, ".")
import entry  # noqa: F401  # puts the network into the zoo
from robustbench.utils import load_model

name, dataset, threat = sys.argv[1:]
model = load_model(name, model_dir="models", dataset=dataset, threat_model=threat)
images = torch.from_numpy(np.load("images.npy"))
with torch.no_grad():
    np.save("logits.npy", model(images).numpy())
