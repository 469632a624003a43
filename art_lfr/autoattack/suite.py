"""The loop of AutoAttack: each attack in turn on what the ones before have left, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from art_lfr.autoattack.attacks import ATTACKS, identity_of, perturb
from art_lfr.autoattack.flags import FlagCollector, find_flags
from art_lfr.autoattack.state import AttackState, StateFile
from art_lfr.core.arguments import check_choice
from art_lfr.core.geometry import sample_norm


@dataclass(frozen=True)
class Progress:
    """`batch` of the `batches` of `attack` are finished, from 0 on; `robust` samples stand."""

    attack: str
    batch: int
    batches: int
    robust: int


def ignore(_: object) -> None:
    """Take something and do nothing."""


@dataclass(frozen=True)
class Listener:
    """Who is told what: lines of the log, warnings, batches."""

    log: Callable[[str], object] = ignore
    warn: Callable[[str], object] = ignore
    progress: Callable[[Progress], object] = ignore


def run_suite(
    suite: Any,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    checks: ModuleType,
    state_path: str | Path | None = None,
    listener: Listener | None = None,
) -> AttackState:
    """Run the attacks of `suite`, an `AutoAttack` of pyautoattack or of the original package.

    Order, batches, seeds and results are those of its own `run_standard_evaluation`; a run that
    goes on from `state_path` ends as one that was not stopped. A sample whose logits hold NaN
    counts as wrong. The global random state is not put back.

    Args:
        suite: The attacks; `attacks_to_run`, `get_seed` and the attacks' settings are read.
        x: Inputs in [0, 1], shape (N, ...).
        y: Index labels, shape (N,).
        batch_size: Samples at a time.
        checks: The module `checks` of the suite's package.
        state_path: File to go on from and to write after each batch, or None.
        listener: Gets the lines that the original prints, warnings, and finished batches.

    Raises:
        ValueError: For unknown attacks, or a file in `state_path` of another run.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020.
    """
    for attack in suite.attacks_to_run:
        check_choice("attacks_to_run", attack, ATTACKS)
    return _Run(suite, x, y, batch_size, checks, listener or Listener()).go(state_path)


class _Run:
    def __init__(
        self,
        suite: Any,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        checks: ModuleType,
        listener: Listener,
    ) -> None:
        self.suite, self.x, self.y, self.batch_size = suite, x, y, batch_size
        self.checks, self.listener = checks, listener
        self.attacks = list(suite.attacks_to_run)
        self.device = torch.device(suite.device)
        self.whole = torch.split(torch.arange(len(x)), batch_size)
        self.file: StateFile | None = None

    def go(self, state_path: str | Path | None) -> AttackState:
        log, state = self.listener.log, None
        if state_path is not None:
            identity = identity_of(self.suite, self.x, self.y, self.batch_size)
            self.file = StateFile(state_path, identity)
            state = self.file.load(self.x, self.device)
            log(f"{'Created state in' if state is None else 'Restored state from'} {state_path}")
        done = 0 if state is None else state.done
        log(f"using {self.suite.version} version including {', '.join(self.attacks[done:])}.")
        collector = FlagCollector([] if state is None else state.flags, self.listener.warn)
        with collector.attached(self.suite), torch.no_grad():
            if state is None:
                find_flags(self.suite, self.checks, *self._batch(self.whole[0]), collector)
                state = self._begin(collector.flags)
                log(f"initial accuracy: {state.accuracies['clean']:.2%}")
            else:
                if done:
                    log(f"{', '.join(self.attacks[:done])} was/were already run.")
                log(f"initial clean accuracy: {state.accuracies['clean']:.2%}")
                log(
                    "robust accuracy at the time of restoring the state: "
                    f"{_share(state.robust):.2%}"
                )
            for attack in self.attacks[done:]:
                if not bool(state.robust.any()):
                    break
                self._run_attack(attack, state)
            self.checks.check_square_sr(state.accuracies, logger=collector)
        self._log_summary(state)
        return state

    def _begin(self, flags: list[str]) -> AttackState:
        """The state before the first attack: who is correct without one."""
        found = [self._predict(*self._batch(chosen)) for chosen in self.whole]
        clean = torch.cat([correct for correct, _ in found])
        state = AttackState(
            adversarial=self.x.detach().clone(),
            labels=torch.cat([labels for _, labels in found]),
            clean=clean,
            robust=clean.clone(),
            started=clean.clone(),
            accuracies={"clean": _share(clean)},
            flags=flags,
        )
        self._save(state, torch.tensor([], dtype=torch.long))
        return state

    def _run_attack(self, attack: str, state: AttackState) -> None:
        if state.batch == 0:
            state.started = state.robust.clone()
        batches = torch.split(state.started.nonzero().flatten(), self.batch_size)
        self._tell(attack, state.batch, len(batches), state)
        for number, chosen in enumerate(batches[state.batch :], start=state.batch + 1):
            began = time.perf_counter()
            x, y = self._batch(chosen)
            adversarial = perturb(self.suite, attack, x, y)
            correct, labels = self._predict(adversarial, y)
            fooled = chosen[~correct]
            state.robust[fooled] = False
            state.adversarial[fooled] = adversarial.detach()[~correct.to(adversarial.device)].to(
                state.adversarial
            )
            state.labels[fooled] = labels[~correct]
            spent = time.perf_counter() - began
            state.seconds[attack] = state.seconds.get(attack, 0.0) + spent
            state.batch = number
            self.listener.log(
                f"{attack} - {number}/{len(batches)} - {len(fooled)} out of {len(x)} successfully "
                "perturbed"
            )
            if number == len(batches):
                state.done, state.batch = state.done + 1, 0
                state.accuracies[attack] = _share(state.robust)
            self._save(state, fooled)
            self._tell(attack, number, len(batches), state)
        self.listener.log(
            f"robust accuracy after {attack.upper()}: {state.accuracies[attack]:.2%} (total time "
            f"{sum(state.seconds.values()):.1f} s)"
        )

    def _batch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of samples on the device: a model may write to its input.

        Laid out row by row: the attacks refuse images whose axes were only permuted.
        """
        x = self.x[chosen].to(self.device, memory_format=torch.contiguous_format)
        return x, self.y[chosen].to(self.device)

    def _predict(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each sample is classified as y, and as what; both on the CPU."""
        logits = self.suite.get_logits(x)
        labels = logits.max(dim=1)[1]
        return (labels.eq(y) & ~logits.isnan().any(dim=1)).cpu(), labels.cpu()

    def _tell(self, attack: str, batch: int, batches: int, state: AttackState) -> None:
        self.listener.progress(Progress(attack, batch, batches, int(state.robust.sum())))

    def _save(self, state: AttackState, fooled: Tensor) -> None:
        if self.file is not None:
            self.file.save(state, fooled, self.device)

    def _log_summary(self, state: AttackState) -> None:
        p = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0}[self.suite.norm]
        found, log = state.adversarial, self.listener.log
        distance = float(sample_norm(found - self.x, p).max())
        log(
            f"max {self.suite.norm} perturbation: {distance:.5f}, nan in tensor: "
            f"{int(found.isnan().sum())}, max: {float(found.max()):.5f}, "
            f"min: {float(found.min()):.5f}"
        )
        log(f"robust accuracy: {_share(state.robust):.2%}")


def _share(mask: Tensor) -> float:
    return int(mask.sum()) / len(mask)
