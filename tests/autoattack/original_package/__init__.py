"""Stands in for the original AutoAttack package: its arguments, the attacks of pyautoattack."""

import pyautoattack

from . import checks  # noqa: F401  # a part of the original


class AutoAttack(pyautoattack.AutoAttack):
    def __init__(
        self,
        model,
        norm="Linf",
        eps=0.3,
        seed=None,
        verbose=True,
        attacks_to_run=[],  # noqa: B006  # as in the original
        version="standard",
        is_tf_model=False,
        device="cuda",
        log_path=None,
    ):
        assert verbose is False
        super().__init__(model, norm=norm, eps=eps, seed=seed, version=version, device=device)
