"""The one training loop, and all that a run carries from step to step."""
