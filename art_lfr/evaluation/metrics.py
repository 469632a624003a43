"""ART's own robustness metrics, beside the local flatness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from art_lfr.attacks.target import Target, classifier_of
from art_lfr.core.arguments import check_choice
from art_lfr.core.randomness import seed_global_generators

METRICS = ("clever_u", "loss_sensitivity")
# CLEVER samples thousands of gradients for each image.
CLEVER_IMAGES = 10
CLEVER_BATCHES = 20
CLEVER_BATCH_SIZE = 20


def measure_metrics(names: Sequence[str], target: Target) -> dict[str, float]:
    """Values by name, from ART (`art.metrics`).

    - "clever_u": the mean CLEVER score (Weng et al. 2018), untargeted, over the first 10 images:
      an estimate of the distance to the nearest error, at most eps; large is robust.
    - "loss_sensitivity": the mean l2 norm of the loss gradient at x (Arpit et al. 2017).
    """
    found: dict[str, float] = {}
    for name in names:
        check_choice("metrics", name, METRICS)
        seed_global_generators(target.seed)  # CLEVER draws from NumPy's
        classifier = classifier_of(target)
        if name == "loss_sensitivity":
            from art.metrics import loss_sensitivity

            x = target.x.numpy()
            y = np.eye(target.classes, dtype=np.float32)[target.y.numpy()]
            # One by one: a loss with reduction "mean" would divide each gradient by the batch.
            samples = (slice(i, i + 1) for i in range(len(x)))
            values = [loss_sensitivity(classifier, x[one], y[one]) for one in samples]
            found[name] = float(np.mean(values))
        else:
            from art.metrics import clever_u

            p = target.ball.p
            scores = [
                clever_u(
                    classifier,
                    image,
                    nb_batches=CLEVER_BATCHES,
                    batch_size=CLEVER_BATCH_SIZE,
                    radius=target.ball.eps,
                    norm=p if p == math.inf else int(p),
                    verbose=False,
                )
                for image in target.x[:CLEVER_IMAGES].numpy()
            ]
            found[name] = float(np.mean(scores))
    return found
