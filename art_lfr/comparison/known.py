"""Finished runs taken from an earlier comparison's JSON, so that they are not repeated."""

from __future__ import annotations

import json
from pathlib import Path

from art_lfr.comparison.plan import Comparison
from art_lfr.comparison.runner import masking_path, result_path
from art_lfr.records import write_record


def take_known(comparison: Comparison, known: Path, directory: Path) -> int:
    """Lay the runs of `known`/NAME.json into `directory` as finished ones; how many.

    Only runs that the plan has, with all settings, data and attacks alike, and no result in
    `directory` yet; not those that lack a masking report which the plan asks for: it has to be
    that of the same weights. Raises ValueError where the file is not what a comparison writes.
    """
    path = known / f"{comparison.name}.json"
    if not path.is_file():
        return 0
    try:
        found = {result["key"]: result for result in json.loads(path.read_text())}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"known file {str(path)!r} is {error!r}; allowed: the NAME.json of a comparison"
        ) from error
    taken = 0
    for run in comparison.runs():
        target = result_path(run, directory)
        if run.key not in found or target.exists():
            continue
        result = dict(found[run.key])
        masking = result.pop("masking", None)
        if comparison.masking_images and masking is None:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if masking is not None:
            write_record(masking_path(run, directory), masking)
        write_record(target, result)
        taken += 1
    return taken
