"""What RobustBench imports and PyPI lacks: the original `autoattack`, by another package."""
