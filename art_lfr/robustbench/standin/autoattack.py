"""The interface of the original AutoAttack package (github.com/fra31/auto-attack) on pyautoattack.

Arguments, attributes, methods, printed lines and results are those of the original, so that code
written for it runs; the loop is that of `art_lfr.autoattack.run_autoattack`. It differs in three
points: a run that goes on from `state_path` ends as one that was not stopped, adversarial examples
included; the model's gradients and the global random state are preserved; unknown names are errors.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from pyautoattack import checks
from torch import Tensor, nn

from art_lfr.attacks.target import preserved_gradients
from art_lfr.autoattack.backend import DYNAMIC, differentiates
from art_lfr.autoattack.state import read_run
from art_lfr.autoattack.suite import ignore, run_suite
from art_lfr.core.arguments import check_choice
from art_lfr.core.randomness import preserved_random_state
from art_lfr.errors import UsageError
from art_lfr.storage.files import write_atomically
from art_lfr.storage.records import unpack

__all__ = ["AutoAttack", "EvaluationState", "Logger", "check_dynamic"]

NORMS = ("Linf", "L2", "L1")
VERSIONS = ("standard", "plus", "rand", "custom")
SUMMARY = "art-lfr AutoAttack summary"
SUMMARY_KEYS = {"attacks_to_run", "run_attacks", "robust_flags", "clean_accuracy"}


class AutoAttack(pyautoattack.AutoAttack):
    """An ensemble of attacks on images in [0, 1] (Croce & Hein, ICML 2020).

    Change `attacks_to_run`, `apgd.n_restarts`, `apgd_targeted.n_target_classes`, `fab.n_restarts`,
    `square.n_queries`, `verbose` or `logger` before a run.

    Args:
        model: Maps images (N, C, H, W) to logits, in whatever mode it is.
        norm: "Linf", "L2" or "L1".
        eps: Radius of the ball.
        seed: Seed of every attack; None takes the clock, as RobustBench does.
        verbose: Print and log lines. Warnings are printed and logged in any case.
        attacks_to_run: With version="custom" only: some of "apgd-ce", "apgd-dlr", "apgd-t", "fab",
            "fab-t", "square".
        version: "standard", "plus", "rand" or "custom".
        is_tf_model: Not supported: TensorFlow needs the original package.
        device: Where the model is; batches are moved there.
        log_path: File to which lines are appended.

    Raises:
        ValueError: For anything else, naming the argument.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        norm: str = "Linf",
        eps: float = 0.3,
        seed: float | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] | None = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: str | torch.device = "cuda",
        log_path: str | Path | None = None,
    ) -> None:
        check_choice("norm", norm, NORMS)
        check_choice("version", version, VERSIONS)
        if is_tf_model:
            raise UsageError(
                "is_tf_model is True; allowed: False, as pyautoattack attacks PyTorch models only "
                "(for TensorFlow: pip install git+https://github.com/fra31/auto-attack)"
            )
        attacks = list(attacks_to_run or ())
        if attacks and version != "custom":
            raise UsageError(
                f"attacks_to_run is {attacks} with version {version!r}, which would "
                "override it; allowed: version='custom'"
            )
        super().__init__(
            model, attacks=None, device=device, eps=eps, norm=norm, seed=seed, version="custom"
        )
        self.version, self.verbose = version, verbose
        self.attacks_to_run = attacks
        self.is_tf_model = is_tf_model
        self.logger: Any = Logger(log_path)
        self.apgd.logger = self.apgd_targeted.logger = self.logger
        if version != "custom":
            self.set_version(version)

    def set_version(self, version: str = "standard") -> None:
        """Set `attacks_to_run` and the attacks' parameters as in "standard", "plus" or "rand"."""
        check_choice("version", version, VERSIONS[:3])
        with self._on_screen():
            self._set_version(version)

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: str | Path | None = None,
    ) -> Any:
        """Run the attacks, each on the samples that are left.

        Returns x_adv, shape of x_orig, x itself where no attack succeeded; with `return_labels`
        (x_adv, y_adv), the model's labels there. `state_path` is written after each batch; where it
        exists the run goes on from it. Raises ValueError where it belongs to another run.
        """
        self._check_device()
        network = self.model if isinstance(self.model, nn.Module) else nn.Identity()
        # FAB adds to the gradients of parameters.
        with (
            preserved_gradients(network.parameters()),
            preserved_random_state(torch.device(self.device)),
        ):
            state = run_suite(
                self,
                x_orig,
                y_orig,
                batch_size=bs,
                checks=checks,
                state_path=state_path,
                log=self.logger.log if self.verbose else ignore,
                warn=lambda text: self.logger.log(f"Warning: {text}"),
            )
        return (state.adversarial, state.labels.to(y_orig)) if return_labels else state.adversarial

    def run_standard_evaluation_individual(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Any]:
        """Run each attack on all samples: attack -> x_adv, or (x_adv, y_adv)."""
        attacks, verbose = self.attacks_to_run, self.verbose
        if verbose:
            Logger(None).info(f"using {self.version} version including {', '.join(attacks)}")
        results: dict[str, Any] = {}
        try:
            self.verbose = False
            for attack in attacks:
                began = time.time()
                self.attacks_to_run = [attack]
                x_adv, y_adv = self.run_standard_evaluation(
                    x_orig, y_orig, bs=bs, return_labels=True
                )
                results[attack] = (x_adv, y_adv) if return_labels else x_adv
                if verbose:
                    accuracy = self.clean_accuracy(x_adv, y_orig, bs=bs)
                    space = "\t \t" if attack == "fab" else "\t"
                    self.logger.log(
                        f"robust accuracy by {attack.upper()} {space} {accuracy:.2%} \t "
                        f"(time attack: {time.time() - began:.1f} s)"
                    )
        finally:
            self.attacks_to_run, self.verbose = attacks, verbose
        return results

    def clean_accuracy(self, x_orig: Tensor, y_orig: Tensor, bs: int = 250) -> float:
        """The share of x_orig that the model classifies as y_orig."""
        self._check_device()
        with self._on_screen(), torch.no_grad():
            return float(super().clean_accuracy(x_orig, y_orig, bs=bs))

    @contextmanager
    def _on_screen(self) -> Iterator[None]:
        """Lines of pyautoattack that the original does not log, whichever logger a user has set."""
        logger = self.logger
        try:
            self.logger = Logger(None)
            yield
        finally:
            self.logger = logger

    def _check_device(self) -> None:
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise UsageError(
                f"device is {str(self.device)!r}, but torch sees no GPU; allowed here: device='cpu'"
            )


class Logger:
    """Prints lines, and appends them to the file `log_path` where there is one.

    Raises ValueError where the file cannot be.
    """

    def __init__(self, log_path: str | Path | None) -> None:
        if log_path is not None and (Path(log_path).is_dir() or not Path(log_path).parent.is_dir()):
            raise UsageError(
                f"log_path is {str(log_path)!r}; allowed: a file in a directory that exists"
            )
        self.log_path = log_path

    def info(self, message: str) -> None:
        """Print a line, as the original does where it does not log."""
        # Flushed, so that a redirected run of hours can be watched.
        print(message, flush=True)

    def log(self, str_to_log: str) -> None:
        """Print a line and append it to the file."""
        self.info(str_to_log)
        if self.log_path is not None:
            with open(self.log_path, "a", encoding="utf-8") as file:
                file.write(str_to_log + "\n")

    def warning(self, message: str) -> None:
        """Log a line that begins with "Warning: ", as pyautoattack's attacks ask for."""
        self.log(f"Warning: {message}")


def check_dynamic(
    model: Callable[[Tensor], object], x: Tensor, is_tf_model: bool = False, logger: Any = None
) -> None:
    """Warn where the forward pass of a model computes gradients, through `logger` if there is one.

    Unlike the original it leaves the trace function of a debugger alone, and judges each model by
    itself.
    """
    if is_tf_model:
        text = "the check for dynamic defenses is not currently supported"
    elif differentiates(model, x):
        text = DYNAMIC
    else:
        return
    if logger is None:
        warnings.warn(text, stacklevel=2)
    else:
        logger.log(f"Warning: {text}")


class RobustFlags(torch.Tensor):
    """A boolean tensor that has a mean: RobustBench asks for it, torch has none for booleans."""

    def mean(self, *arguments: Any, **keywords: Any) -> Tensor:
        """The share of True, in float64, so that it is the very quotient of the two counts."""
        return self.as_subclass(Tensor).double().mean(*arguments, **keywords)


class EvaluationState:
    """Which attacks were run, and which samples withstood them.

    `from_disk` reads the state file of a run, which has more: adversarial examples, position and
    random states. `to_disk` writes what is here, as JSON, and never over the file of a run.
    """

    def __init__(
        self,
        _attacks_to_run: Iterable[str],
        path: str | Path | None = None,
        _run_attacks: Iterable[str] = (),
        _robust_flags: Tensor | None = None,
        _clean_accuracy: float = math.nan,
    ) -> None:
        self.path = None if path is None else Path(path)
        self._attacks_to_run = set(_attacks_to_run)
        self._run_attacks = set(_run_attacks)
        self._robust_flags = _with_mean(_robust_flags)
        self._clean_accuracy = _clean_accuracy

    @classmethod
    def from_disk(cls, path: str | Path) -> EvaluationState:
        """Read a state; FileNotFoundError or ValueError, naming the path, where there is none."""
        path = Path(path)
        content = _read_summary(path)
        if content is None:
            run = read_run(path)
            attacks = run["identity"]["attacks"]
            content = {
                "attacks_to_run": attacks,
                "run_attacks": attacks[: run["done"]],
                "robust_flags": unpack(run["robust"], run["identity"]["samples"]),
                "clean_accuracy": run["accuracies"]["clean"],
            }
        flags, accuracy = content["robust_flags"], content["clean_accuracy"]
        return cls(
            content["attacks_to_run"],
            path,
            content["run_attacks"],
            None if flags is None else torch.as_tensor(flags),
            math.nan if accuracy is None else accuracy,
        )

    def to_disk(self, force: bool = False) -> None:
        """Write the state; `force` is accepted, and not needed, as every call writes.

        Raises ValueError where `path` holds a run that may be resumed.
        """
        if self.path is None:
            return
        if self.path.exists() and _read_summary(self.path) is None:
            raise UsageError(
                f"path is {str(self.path)!r}, which holds a run that may be resumed, or something "
                "else; allowed: another path"
            )
        flags = self._robust_flags
        content = {
            "kind": SUMMARY,
            "attacks_to_run": sorted(self._attacks_to_run),
            "run_attacks": sorted(self._run_attacks),
            "robust_flags": None if flags is None else flags.tolist(),
            "clean_accuracy": None if math.isnan(self._clean_accuracy) else self._clean_accuracy,
        }
        write_atomically(self.path, json.dumps(content))

    @property
    def robust_flags(self) -> RobustFlags | None:
        """Whether each sample is still robust, (N,), or None before the first attack."""
        return self._robust_flags

    @robust_flags.setter
    def robust_flags(self, robust_flags: Tensor) -> None:
        self._robust_flags = _with_mean(robust_flags)
        self.to_disk(force=True)

    @property
    def run_attacks(self) -> set[str]:
        """The attacks that are finished."""
        return self._run_attacks

    def add_run_attack(self, attack: str) -> None:
        """Count an attack as finished."""
        self._run_attacks.add(attack)
        self.to_disk()

    @property
    def attacks_to_run(self) -> set[str]:
        """All attacks of the run."""
        return self._attacks_to_run

    @property
    def clean_accuracy(self) -> float:
        """The accuracy without an attack; NaN before it is known."""
        return self._clean_accuracy

    @clean_accuracy.setter
    def clean_accuracy(self, accuracy: float) -> None:
        self._clean_accuracy = accuracy
        self.to_disk(force=True)

    @property
    def robust_accuracy(self) -> float:
        """The share of robust samples; ValueError before the first attack."""
        if self._robust_flags is None:
            raise UsageError("robust_flags is None; allowed: a state whose run has begun")
        # A run ends early where no sample is left.
        if self._attacks_to_run - self._run_attacks and bool(self._robust_flags.any()):
            warnings.warn("robust_accuracy before all attacks have been run", stacklevel=2)
        return float(self._robust_flags.mean())


def _read_summary(path: Path) -> dict[str, Any] | None:
    """What `to_disk` wrote, or None where the file is something else."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return None
    known = isinstance(content, dict) and content.get("kind") == SUMMARY
    return content if known and content.keys() >= SUMMARY_KEYS else None


def _with_mean(flags: Tensor | None) -> RobustFlags | None:
    return None if flags is None else flags.detach().bool().as_subclass(RobustFlags)
