"""The text of a request to add a model to RobustBench's leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REQUEST = """# New model: {title}

**Paper**

- Title: {title}
- Authors: {authors}
- Venue: {venue}
- Link: {link}

**Claim: {name}**

- Architecture: {architecture}
- Data set: {dataset}
- Threat model: {threat}
- eps: {eps}
- Clean accuracy: {clean} %
- Robust accuracy: {robust} %
- Additional data: {additional}
- Forward passes for one prediction: {passes}
- Evaluation: standard AutoAttack on all test images (state what differs)
- Checkpoint: `models/{dataset}/{folder}/{name}.pt` (upload it; put its id into entry.py)
- Code: `entry.py`, a module from images in [0, 1] to logits, normalisation inside

**Conditions** (art_lfr.robustbench.check_conditions tests them)

- [ ] gradients with respect to the input are not zero
- [ ] the forward pass is deterministic
- [ ] there is no optimisation loop in the forward pass

**Model zoo**

- [ ] I want to add the model to the model zoo
- [ ] I agree to release it under the MIT license
"""


def request_text(name: str, threat_model: str, information: Mapping[str, Any]) -> str:
    """The text, filled in from the entry's `model_info`."""
    robust = next(
        value
        for key, value in information.items()
        if "_acc" in key and key != "clean_acc" and value
    )
    return REQUEST.format(
        title=information["name"],
        authors=information["authors"],
        venue=information["venue"] or "unpublished",
        link=information["link"],
        name=name,
        architecture=information["architecture"],
        dataset=information["dataset"],
        threat=threat_model,
        folder=threat_model.removesuffix("_3d"),
        eps=information["eps"] or "none",
        clean=information["clean_acc"],
        robust=robust,
        additional="yes" if information["additional_data"] else "no",
        passes=information["number_forward_passes"],
    )
