"""Settings tried one after another on training images alone, within a budget: `tune`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from typing_extensions import Unpack

from art_lfr.art.trainer import AdversarialTrainerLFRPyTorch
from art_lfr.core.arguments import (
    Array,
    check_integer,
    check_number,
    check_seed,
    check_share,
    keywords_of,
)
from art_lfr.core.names import GRADIENT_NORMS, parse_norm
from art_lfr.core.processes import Processes
from art_lfr.errors import TrainingError, UsageError, WrongTypeError
from art_lfr.penalties import LocalFlatness
from art_lfr.storage.files import as_path, locked
from art_lfr.tuning.results import Candidate, Trial, Tuning, candidates
from art_lfr.tuning.trial import Conditions, TrialStore, TunedKeywords, split

# APGD with cross-entropy, and Square, which needs no gradient: a network that hides its gradients
# does not mislead it.
ATTACKS = ("APGD-CE", "Square")


@keywords_of(AdversarialTrainerLFRPyTorch, only=TunedKeywords)
def tune(
    make_classifier: Callable[[], Any],
    x: Array,
    y: Array,
    *,
    eps: float,
    norm: float | str = math.inf,
    minutes: float = 30.0,
    clean_floor: float | None = None,
    held_out: int | tuple[Array, Array] | None = None,
    epochs: int = 20,
    batch_size: int = 128,
    max_iter: int = 2,
    make_scheduler: Callable[[Any, int], Any] | None = None,
    attacks: Sequence[str] = ATTACKS,
    seed: int = 0,
    state_dir: str | Path | None = None,
    callback: Callable[[Trial], object] | None = None,
    reference: Candidate | None = None,
    **trainer: Unpack[TunedKeywords],
) -> Tuning:
    """Propose `lam`, `radius` and `eps_step` by training on a part of (x, y), judging on the rest.

    The settings are those of `candidates`: `reference` first, then the package's defaults and a
    fixed list around them, each trained in the same way from the same weights. Proposed is the
    highest worst-case accuracy on the held-out images among settings whose clean accuracy there is
    at least `clean_floor`. The reference is proposed unless another is better by more than the
    noise: the interval of the difference, image by image, lies above 0. The intervals of all
    differences hold together with 95 % (Bonferroni), as of many settings one looks better by
    chance.

    How far to trust it: accuracies of a few hundred images from one seed are noisy, and the
    intervals hold the chance of the images, not that of the seed. The numbers are for choosing: do
    not report them, because the attacks are quick ones and the choice was made on these images.

    Args:
        make_classifier: Gives a fresh ART classifier with an optimizer at each call, with the same
            weights each time; the global generators get the same seed before each call.
        x: Training inputs in raw units, shape (N, *input_shape). Never give test images.
        y: Labels: indices, shape (N,), or one-hot rows.
        eps: Radius of the ball, > 0, in raw units.
        norm: p of the ball: np.inf, 2 or 1.
        minutes: Budget, > 0, for training and judging. A trial starts only if the longest one so
            far fits into what is left; the first always runs. Trials taken over from `state_dir`
            count with the time that they took.
        clean_floor: Least clean accuracy on the held-out images, in (0, 1]; None: any.
        held_out: How many of (x, y), the last ones, are reserved for judging, or (x, y) of a
            validation set of your own. None: a fifth of x, at most 1,000. Shuffle sorted data.
        epochs: Epochs of each trial; for a proposal that holds, as many as you will train.
        batch_size: Samples in a batch.
        max_iter: Ascent steps K, >= 1.
        make_scheduler: (optimizer, number of batches in all) -> learning-rate scheduler, which is
            stepped after each batch.
        attacks: Names of attacks of `evaluate`; have one without gradients among them. Square
            needs images (N, C, H, W).
        seed: Seed of everything random.
        state_dir: Keeps each finished trial: the same call goes on from there, also after a kill
            and with other `minutes` or another `clean_floor`; another tuning is refused.
        callback: Gets each new `Trial` when it has finished.
        reference: The setting to try first and to compare with; None: the package's defaults.
        trainer: Other keywords of `AdversarialTrainerLFRPyTorch`, such as `augment`, or `penalty`
            with "lfr-held".

    Returns:
        A `Tuning`; print it, or take `.lam`, `.radius`, `.eps_step`, `.to_frame()`, `.to_json()`.

    Raises:
        ValueError, TypeError: For bad arguments or data, before any training.
        TrainingError: Where every training failed.
    """
    Processes().check_alone("tune")
    check_number("eps", eps, low_allowed=False)
    p = parse_norm(norm)
    check_number("minutes", minutes, low_allowed=False)
    check_share("clean_floor", clean_floor)
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("max_iter", max_iter)):
        check_integer(name, value, low=1)
    check_seed("seed", seed)
    check_penalty("penalty", trainer.get("penalty", "lfr"))
    if not isinstance(reference, Candidate | None):
        raise WrongTypeError(f"reference is {reference!r}; allowed: a Candidate, or None")
    listed = isinstance(attacks, Sequence) and not isinstance(attacks, str)
    if not listed or not attacks or not all(isinstance(a, str) for a in attacks):
        raise WrongTypeError(f"attacks is {attacks!r}; allowed: a sequence of names, at least one")
    conditions = Conditions(
        make_classifier=make_classifier,
        data=split(x, y, held_out),
        eps=float(eps),
        p=p,
        epochs=int(epochs),
        batch_size=int(batch_size),
        max_iter=int(max_iter),
        make_scheduler=make_scheduler,
        attacks=tuple(attacks),
        seed=int(seed),
        trainer=trainer,
    )
    directory = None if state_dir is None else as_path("state_dir", state_dir)
    identity = conditions.identity  # checks what it is made of
    with locked(directory, "state_dir"):
        trials, not_tried = _search(
            candidates(p, max_iter, trainer.get("estimator", "finite-difference"), reference),
            conditions,
            TrialStore(directory, identity),
            budget=60 * minutes,
            callback=callback,
        )
    return Tuning(
        eps=float(eps),
        norm=f"{p:g}",
        max_iter=int(max_iter),
        clean_floor=clean_floor,
        minutes=float(minutes),
        trials=tuple(trials),
        not_tried=tuple(not_tried),
        settings=conditions.settings,
    )


def check_penalty(name: str, penalty: object) -> None:
    """Raise unless it is a form of LFR: of others, lam is no multiple of eps."""
    if not isinstance(penalty, LocalFlatness) and penalty not in GRADIENT_NORMS:
        raise UsageError(
            f"{name} is {penalty!r}; allowed: {', '.join(GRADIENT_NORMS)}, or an "
            "art_lfr.penalties.LocalFlatness (the settings tried are multiples of eps)"
        )


def _search(
    listed: Sequence[Candidate],
    conditions: Conditions,
    store: TrialStore,
    *,
    budget: float,
    callback: Callable[[Trial], object] | None,
) -> tuple[list[Trial], list[Candidate]]:
    """The finished trials and the candidates without one, both in the order of the list."""
    trials = {c: trial for c in listed if (trial := store.load(c)) is not None}
    for candidate in listed:
        if candidate in trials:
            continue
        seconds = [trial.seconds for trial in trials.values()]
        # The reference always runs, as the others are compared with it.
        if candidate != listed[0] and sum(seconds) + max(seconds) > budget:
            break
        start = monotonic()
        clean, robust, problem = conditions.attempt(candidate)
        trial = Trial(
            candidate, np.asarray(clean), np.asarray(robust), monotonic() - start, problem
        )
        store.save(trial)
        trials[candidate] = trial
        if callback is not None:
            callback(trial)
    if all(trial.problem for trial in trials.values()):
        problem = next(iter(trials.values())).problem
        raise TrainingError(f"every one of {len(trials)} trainings failed; the first: {problem}")
    return ([trials[c] for c in listed if c in trials], [c for c in listed if c not in trials])
