"""LFR in ART: classifiers, the trainer, the transformer."""
