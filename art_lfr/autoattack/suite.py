"""The loop of AutoAttack: each attack in turn on what the ones before have left, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from art_lfr.autoattack.backend import FlagCollector, find_flags
from art_lfr.autoattack.state import AttackState, StateFile, identity_of
from art_lfr.core.arguments import check_choice
from art_lfr.core.geometry import sample_norm
from art_lfr.core.names import NORM_NAMES
from art_lfr.core.processes import Processes
from art_lfr.core.progress import alive, bar
from art_lfr.storage.files import check_output, locked

ATTACKS = ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")


def ignore(_: object) -> None:
    """Take something and do nothing."""


def run_suite(
    suite: Any,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    checks: ModuleType,
    state_path: str | Path | None = None,
    log: Callable[[str], object] = ignore,
    warn: Callable[[str], object] = ignore,
    progress: bool = False,
    processes: Processes | None = None,
) -> AttackState:
    """Run the attacks of `suite`, an `AutoAttack` of either package, whose `checks` are given.

    x (N, ...) lies in [0, 1]. Order, batches, seeds and results are those of the suite's own
    `run_standard_evaluation`; a run that goes on from `state_path` ends as one that was not
    stopped. A sample whose logits hold NaN counts as wrong. The global random state is not put
    back. `log` gets the lines that the original prints, `warn` each warning; `progress` shows a bar
    for each attack. Raises ValueError for unknown attacks, or a `state_path` of another run.

    `processes` take one batch each at a time and agree on what has fallen; each batch has its own
    seed, so the state does not depend on how many they are. The main one logs and writes.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020.
    """
    for attack in suite.attacks_to_run:
        check_choice("attacks_to_run", attack, ATTACKS)
    processes = processes or Processes.single()
    path = None
    if (place := state_path) is not None:
        path = processes.by_main(lambda: check_output(place, "state_path"))
    if not processes.main:
        log = warn = ignore
    with ExitStack() as stack:
        processes.main_enters(stack, locked(path, "state_path", file=True))
        run = _Run(suite, x, y, batch_size, checks, log, warn, progress, processes)
        return run.go(path, state_path)


class _Outcome(NamedTuple):
    """What an attack did to a batch: who stands, the examples and labels of the others, flags."""

    correct: Tensor
    fooling: Tensor
    labels: Tensor
    flags: list[str]


@dataclass
class _Run:
    suite: Any
    x: Tensor
    y: Tensor
    batch_size: int
    checks: ModuleType
    log: Callable[[str], object]
    warn: Callable[[str], object]
    progress: bool
    processes: Processes
    file: StateFile | None = None

    @property
    def device(self) -> torch.device:
        return torch.device(self.suite.device)

    def go(self, path: Path | None, shown: str | Path | None) -> AttackState:
        """The whole run, or what is left of it; `shown` is the path as the user wrote it."""
        state, attacks = None, list(self.suite.attacks_to_run)
        if path is not None:
            state = self.processes.by_main(lambda: self._load(path))
            self.log(f"{'Created state in' if state is None else 'Restored state from'} {shown}")
        done = 0 if state is None else state.done
        self.log(f"using {self.suite.version} version including {', '.join(attacks[done:])}.")
        collector = FlagCollector([] if state is None else state.flags, self.warn)
        with torch.no_grad():
            whole = torch.split(torch.arange(len(self.x)), self.batch_size)
            if state is None:
                first = self._batch(whole[0])
                collector.flags = self.processes.by_main(lambda: self._flags(first, collector))
                state = self._begin(whole, collector.flags)
                self.log(f"initial accuracy: {state.accuracies['clean']:.2%}")
            else:
                state.flags = collector.flags
                if done:
                    self.log(f"{', '.join(attacks[:done])} was/were already run.")
                self.log(f"initial clean accuracy: {state.accuracies['clean']:.2%}")
                self.log(
                    "robust accuracy at the time of restoring the state: "
                    f"{_share(state.robust):.2%}"
                )
            for attack in attacks[done:]:
                if not bool(state.robust.any()):
                    break
                self._run_attack(attack, state, collector)
            self.checks.check_square_sr(state.accuracies, logger=collector)
        self._log_summary(state)
        return state

    def _flags(self, batch: tuple[Tensor, Tensor], collector: FlagCollector) -> list[str]:
        find_flags(self.suite, self.checks, *batch, collector)
        return collector.flags

    def _begin(self, batches: Sequence[Tensor], flags: list[str]) -> AttackState:
        """The state before the first attack: who is correct without one."""
        predicted = self.processes.dealt(
            len(batches), lambda index: self._predict(*self._batch(batches[index]))
        )
        clean = torch.cat([correct for correct, _ in predicted])
        state = AttackState(
            adversarial=self.x.detach().clone(),
            labels=torch.cat([labels for _, labels in predicted]),
            clean=clean,
            robust=clean.clone(),
            started=clean.clone(),
            accuracies={"clean": _share(clean)},
            flags=flags,
        )
        self._save(state, torch.tensor([], dtype=torch.long))
        return state

    def _run_attack(self, attack: str, state: AttackState, collector: FlagCollector) -> None:
        if state.batch == 0:
            state.started = state.robust.clone()
        batches = torch.split(state.started.nonzero().flatten(), self.batch_size)
        shown = bar(
            attack,
            shown=self.progress,
            total=len(batches),
            initial=state.batch,
            unit="batch",
            postfix={"robust": int(state.robust.sum())},
        )
        with shown, alive(shown, self.suite.model):
            size = self.processes.size
            for first in range(state.batch, len(batches), size):
                left = batches[first : first + size]
                self._run_batches(attack, left, len(batches), state, collector)
                shown.set_postfix(robust=int(state.robust.sum()), refresh=False)
                shown.update(len(left))
        self.log(
            f"robust accuracy after {attack.upper()}: {state.accuracies[attack]:.2%} (total time "
            f"{sum(state.seconds.values()):.1f} s)"
        )

    def _run_batches(
        self,
        attack: str,
        left: Sequence[Tensor],
        batches: int,
        state: AttackState,
        collector: FlagCollector,
    ) -> None:
        """One batch for each process, and what they have found into the state of all."""
        began = time.perf_counter()
        found = self.processes.dealt(len(left), lambda index: self._attack(attack, left[index]))
        spent = time.perf_counter() - began
        state.seconds[attack] = state.seconds.get(attack, 0.0) + spent
        fallen = []
        for chosen, outcome in zip(left, found, strict=True):
            for flag in outcome.flags:
                collector.warning(flag)
            fooled = chosen[~outcome.correct]
            state.robust[fooled] = False
            state.adversarial[fooled] = outcome.fooling.to(state.adversarial)
            state.labels[fooled] = outcome.labels
            fallen.append(fooled)
            state.batch += 1
            self.log(
                f"{attack} - {state.batch}/{batches} - {len(fooled)} out of {len(chosen)} "
                "successfully perturbed"
            )
        if state.batch == batches:
            state.done, state.batch = state.done + 1, 0
            state.accuracies[attack] = _share(state.robust)
        self._save(state, torch.cat(fallen))

    def _attack(self, attack: str, chosen: Tensor) -> _Outcome:
        x, y = self._batch(chosen)
        collector = FlagCollector()
        with collector.attached(self.suite):
            adversarial = perturb(self.suite, attack, x, y)
        correct, labels = self._predict(adversarial, y)
        fooling = adversarial.detach()[~correct.to(adversarial.device)]
        (fooling,) = self.processes.to_send(fooling)
        return _Outcome(correct, fooling, labels[~correct], collector.flags)

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

    def _load(self, path: Path) -> AttackState | None:
        identity = identity_of(self.suite, self.x, self.y, self.batch_size)
        self.file = StateFile(path, identity)
        return self.file.load(self.x, self.device)

    def _save(self, state: AttackState, fooled: Tensor) -> None:
        def write() -> None:
            if self.file is not None:
                self.file.save(state, fooled, self.device)

        self.processes.by_main(write)

    def _log_summary(self, state: AttackState) -> None:
        p = {name: p for p, name in NORM_NAMES.items()}[self.suite.norm]
        adversarial = state.adversarial
        self.log(
            f"max {self.suite.norm} perturbation: "
            f"{float(sample_norm(adversarial - self.x, p).max()):.5f}, nan in tensor: "
            f"{int(adversarial.isnan().sum())}, max: {float(adversarial.max()):.5f}, "
            f"min: {float(adversarial.min()):.5f}"
        )
        self.log(f"robust accuracy: {_share(state.robust):.2%}")


def _share(mask: Tensor) -> float:
    return int(mask.sum()) / len(mask)


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
        adversarial: Tensor = attack.perturb(x, y)
    finally:
        attack.n_restarts = restarts
    return adversarial
