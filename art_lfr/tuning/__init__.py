"""Settings of local flatness regularization chosen on held-out training images: `tune`."""

from art_lfr.tuning.results import Candidate, Trial, Tuning, candidates
from art_lfr.tuning.run import tune

__all__ = ["Candidate", "Trial", "Tuning", "candidates", "tune"]
