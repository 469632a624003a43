"""RobustBench on what PyPI has: `import art_lfr.robustbench` makes `import robustbench` work.

The wheel of RobustBench imports `autoattack`, which PyPI lacks, and `pkg_resources`, which
setuptools lacks since version 82. This module provides both where nothing else does: an
`autoattack` from GitHub wins. It also has RobustBench's protocol on a user's own images
(`benchmark`, `benchmark_corruptions`), its three conditions (`check_conditions`), its zoo as ART
classifiers (`to_art`), and entries for its leaderboard (`export`, `register`).

Raises ImportError with the pip line where a library is missing.
"""

from __future__ import annotations

from art_lfr.robustbench.standin.finder import import_robustbench

import_robustbench()

# Only now: these import RobustBench themselves.
from art_lfr.robustbench.conditions import Conditions, check_conditions  # noqa: E402
from art_lfr.robustbench.export import Entry, export, register  # noqa: E402
from art_lfr.robustbench.protocol import benchmark, benchmark_corruptions  # noqa: E402
from art_lfr.robustbench.zoo import to_art  # noqa: E402

__all__ = [
    "Conditions",
    "Entry",
    "benchmark",
    "benchmark_corruptions",
    "check_conditions",
    "export",
    "register",
    "to_art",
]
