"""The attacks of AutoAttack: one call of one of them, and what tells a run from another."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from art_lfr.storage.fingerprint import fingerprint

ATTACKS = ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")
SETTINGS = ("n_restarts", "n_target_classes", "n_queries", "eot_iter", "use_largereps")


def perturb(suite: Any, name: str, x: Tensor, y: Tensor) -> Tensor:
    """Adversarial examples of the attack of that name, seeded as the suite says.

    `suite` is an `AutoAttack` of pyautoattack or of the original package; x (N, ...) lies in
    [0, 1]. FAB keeps its number of restarts: its targeted run, for which the targets are the
    restarts, would otherwise leave 1 to later runs.
    """
    if name in ("apgd-ce", "apgd-dlr"):
        attack = suite.apgd
        attack.loss = name.removeprefix("apgd-")
    elif name == "apgd-t":
        attack = suite.apgd_targeted
    elif name == "square":
        attack = suite.square
    else:
        attack = suite.fab
        attack.targeted = name == "fab-t"
    attack.seed = suite.get_seed()
    restarts = attack.n_restarts
    try:
        if name == "fab-t":
            attack.n_restarts = 1
        found: Tensor = attack.perturb(x, y)
    finally:
        attack.n_restarts = restarts
    return found


def identity_of(suite: Any, x: Tensor, y: Tensor, batch_size: int) -> dict[str, Any]:
    """What two runs have in common if one can go on where the other stopped, as JSON types.

    Data and weights count by their hash; a model that is no `torch.nn.Module` has none.
    """
    nothing = nn.Identity()
    return {
        "x": fingerprint(nothing, {"x": x}, {}),
        "y": fingerprint(nothing, {"y": y}, {}),
        "model": fingerprint(
            suite.model if isinstance(suite.model, nn.Module) else nothing, {}, {}
        ),
        "samples": len(x),
        "eps": float(suite.epsilon),
        "norm": suite.norm,
        "attacks": list(suite.attacks_to_run),
        "seed": suite.seed,
        "batch_size": batch_size,
        "settings": {
            name: _settings(getattr(suite, name))
            for name in ("apgd", "apgd_targeted", "fab", "square")
        },
    }


def _settings(attack: Any) -> dict[str, Any]:
    found = {name: getattr(attack, name) for name in SETTINGS if hasattr(attack, name)}
    # With larger radii first, each run of APGD leaves its last number of steps in `n_iter`.
    scheduled = found.get("use_largereps", False)
    return {**found, "n_iter": getattr(attack, "n_iter_orig" if scheduled else "n_iter", None)}
