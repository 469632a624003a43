"""What does not go with LFR, found before training: `check_model`."""

from art_lfr.check.model import Finding, check_model

__all__ = ["Finding", "check_model"]
