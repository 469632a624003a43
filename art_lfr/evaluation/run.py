"""Accuracy under attacks and local flatness, in one table: `evaluate`."""

from __future__ import annotations

import io
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from art_lfr.art.module import BoundsChoice
from art_lfr.art.module_or_classifier import adapter_of
from art_lfr.attacks.named import AttackResult, NamedAttack, run_attack
from art_lfr.attacks.target import (
    Target,
    classifier_of,
    draws_random_numbers,
    judged_together,
    make_target,
    preserved,
    right,
)
from art_lfr.core.arguments import Array, check_choice, check_flag, check_integer, check_type
from art_lfr.core.modes import gradients_enabled
from art_lfr.core.processes import Processes, one_process
from art_lfr.core.progress import passes_of, passing_lines
from art_lfr.core.randomness import seed_global_generators
from art_lfr.core.settings import LFRSettings
from art_lfr.errors import UsageError
from art_lfr.evaluation.resolve import resolve_attacks
from art_lfr.evaluation.results import Evaluation, Row
from art_lfr.evaluation.store import EvaluationStore
from art_lfr.measure import flatness_with
from art_lfr.storage.description import library_of
from art_lfr.storage.files import as_path, check_output, locked, write_atomically
from art_lfr.storage.identity import Identity

# CLEVER samples thousands of gradients for each image.
CLEVER_IMAGES = 10
CLEVER_BATCHES = 20
CLEVER_BATCH_SIZE = 20
# Of fewer images, one class for all may be right.
FEWEST_FOR_COLLAPSE = 20
CONSTANT = "the network names class"
# Shares of the images that these break and PGD-40 does not, from which on gradients mislead: those
# at which the masking report fails. And the share with a gradient of exactly 0.
MISLED = {"APGD-T": 0.15, "Square": 0.10}
WITHOUT_SLOPE = 0.10
# Rounding of a sum of probabilities.
SUM_SLACK = 1e-5


@gradients_enabled()
def evaluate(
    model: object,
    x: Tensor | Array,
    y: Tensor | Array,
    *,
    eps: float,
    norm: float | str = math.inf,
    attacks: object = "quick",
    bounds: BoundsChoice = "auto",
    batch_size: int = 256,
    seed: int = 0,
    flatness_steps: int = 20,
    metrics: str | Sequence[str] = (),
    save_adversarial: str | Path | None = None,
    state_dir: str | Path | None = None,
    verbose: bool = False,
    callback: Callable[[Row], object] | None = None,
) -> Evaluation:
    """Accuracy without and with attacks, the worst case per sample, and local flatness.

    Every attack starts from the samples that are classified correctly without one; the others
    count as errors throughout. Each adversarial example is checked to lie in the ball and the
    valid box. The model's modes, flags and gradients, x, and the global random state are left as
    found. The attacks run on the model's device.

    Under `accelerate launch` all processes call it, with the same model and data, and all get the
    table that one would have. The main one prints, writes and calls `callback`. Whole batches of
    the clean pass, of the flatness and of the attacks FGSM, PGD, PGD-40, MI-PGD, APGD-CE, APGD-T,
    Square and AutoAttack are dealt; other attacks and the metrics are the main one's alone, and so
    is all of a model that draws random numbers.

    Args:
        model: A module that maps (N, ...) to logits, with tensors or arrays; or an ART
            `PyTorchClassifier`, whose preprocessing, loss and `clip_values` are then used.
        x: Inputs, shape (N, ...), in raw units.
        y: Labels: indices, shape (N,), or one-hot rows.
        eps: Radius of the ball, > 0, in raw units (before preprocessing).
        norm: p of the ball: np.inf, 2 or 1.
        attacks: A preset, an attack, or a list or mapping (name to attack) of them, mixed freely.
            Presets: "quick" (PGD-40 of ART, APGD-T and Square with 1,000 queries of AutoAttack),
            "paper" (FGSM, PGD, MI-PGD, JSMA, DDN-L2, pointwise, with the parameters of the LFR
            paper; needs foolbox), "autoattack" (the standard AutoAttack). Attacks: the names
            above, attack objects of ART, torchattacks and foolbox, and functions (model, x, y) ->
            adversarial, those of adv_lib among them; or an `AttackSpec` around one. An object that
            was made for another model attacks that one, and a note says so. One with a norm of its
            own is judged in its own ball; one without a budget (such as DeepFool, or a function)
            counts where its example lies in the ball.
        bounds: Valid inputs (low, high), numbers or per-feature arrays, or None. "auto": [0, 1],
            or a classifier's `clip_values`.
        batch_size: Samples at a time.
        seed: Seed of every attack and of the flatness.
        flatness_steps: Ascent steps of the flatness, >= 0.
        metrics: Any of "clever_u" and "loss_sensitivity", ART's metrics.
        save_adversarial: A .npz file for the adversarial examples, one array for each attack.
        state_dir: A directory that keeps each finished attack: the same call goes on from them.
        verbose: Print each row to stderr as soon as it is known; on a terminal these lines go away
            at the end, and bars say what is at work and how long it will take.
        callback: Gets each `Row` as soon as it is known, before it is printed.

    Returns:
        An `Evaluation`; print it, or take `.to_frame()`, `.to_markdown()`, `.to_latex()`,
        `.to_json()`. Accuracies are shares in [0, 1], per cent where printed.

    Example::

        from art_lfr import evaluate

        found = evaluate(model, x, y, eps=0.1)  # PGD-40, APGD-T and Square
        print(found)
        print(found.worst_case.accuracy, found["Square"].accuracy)

    A network that returns NaN, or the same for every image, is judged too: the notes say so, and
    NaN counts as misclassified. A metric that cannot be taken is NaN, its reason in the notes.

    Raises:
        ValueError, TypeError: For bad arguments or data, naming the parameter.
        ImportError: Where an attack needs a library that is missing; says how to install it.
        RuntimeError: Where an attack returns an infeasible example.
    """
    check_integer("flatness_steps", flatness_steps, low=0)
    check_flag("verbose", verbose)
    metrics = (metrics,) if isinstance(metrics, str) else metrics
    check_type("metrics", metrics, Sequence, "a name or a list of names")
    for metric in metrics:
        check_choice("metrics", metric, METRICS)
    # Before the model is called, which may change the current directory.
    directory = None if state_dir is None else as_path("state_dir", state_dir)
    processes, place = Processes(), save_adversarial
    examples = processes.by_main(
        lambda: None if place is None else check_output(place, "save_adversarial", (".npz",))
    )
    target = make_target(
        model,
        x,
        y,
        eps=eps,
        norm=norm,
        bounds=bounds,
        batch_size=batch_size,
        seed=seed,
        progress=verbose,
        processes=processes,
    )
    judge = partial(
        _judged,
        model=model,
        attacks=attacks,
        flatness_steps=flatness_steps,
        metrics=metrics,
        save_adversarial=examples,
        state_dir=directory,
        callback=callback,
    )
    return judged_together(target, judge)


def _judged(
    target: Target,
    *,
    model: object,
    attacks: object,
    flatness_steps: int,
    metrics: Sequence[str],
    save_adversarial: Path | None,
    state_dir: Path | None,
    callback: Callable[[Row], object] | None,
) -> Evaluation:
    """`evaluate` with arguments that are checked, in all processes of the target.

    What writes, prints or calls the user's functions is done `by_main`: an error there ends all.
    """
    processes = target.processes
    store: EvaluationStore | None = None

    def open_store() -> None:
        nonlocal store
        store = None if state_dir is None else EvaluationStore(state_dir, target)

    def settle_store() -> None:
        if store is not None:
            store.settle(target.adapter.network)

    def tell(row: Row) -> None:
        def by_main() -> None:
            if callback is not None:
                with one_process():  # in what it calls no other process takes part
                    callback(row)
            say(f"{row.name}: {100 * row.accuracy:.1f} % ({row.seconds:.1f} s)")

        processes.by_main(by_main)

    with (
        passing_lines(shown=target.progress) as say,
        preserved(target.module, target.device),
        ExitStack() as stack,
    ):
        to_run = resolve_attacks(attacks, target, state_dir=state_dir)
        asked = [attack.name for attack in to_run], list(metrics), flatness_steps
        processes.check_same("attacks, metrics or flatness_steps", asked)
        processes.main_enters(stack, locked(state_dir, "state_dir"))
        processes.by_main(open_store)
        start = time.perf_counter()
        logits = target.logits(target.x)
        clean = right(logits, target.y)
        processes.by_main(settle_store)
        shifted = check_shifted_labels(target, clean)
        rows, results = [Row.of("clean", clean.numpy(), time.perf_counter() - start)], {}
        tell(rows[0])
        for attack in to_run:
            row, results[attack.name] = _attack(attack, target, clean, store)
            rows.append(row)
            tell(row)
        measured, failed = {}, [*shifted, *_of_logits(logits)]
        if processes.by_main(lambda: draws_random_numbers(target)):
            failed.append(
                "the network draws random numbers: each attack sees and is judged by single draws"
            )
        for metric in metrics:
            seed_global_generators(target.seed)  # CLEVER draws from NumPy's
            measured[metric] = math.nan
            try:
                measured[metric] = processes.by_main(partial(METRICS[metric], target))
            except Exception as error:  # the table does not wait for what ART has to say
                failed.append(f"{metric} is not measured: {_first_line(error)}")
    correct = {"clean": clean.numpy()}
    correct |= {name: result.correct.numpy() for name, result in results.items()}
    together = [
        attack
        for attack in to_run
        if attack.threat == target.threat and len(correct[attack.name]) == len(target.x)
    ]
    worst = np.logical_and.reduce([correct["clean"], *(correct[a.name] for a in together)])
    seconds = sum(row.seconds for row in rows)
    rows.append(Row.of("worst case", worst, seconds, threat=target.threat.label))
    tell(rows[-1])
    processes.by_main(partial(_save, save_adversarial, target, results))
    flatness = np.full(len(target.x), math.nan)
    try:
        with passes_of(target.adapter.module, "local flatness", shown=target.progress):
            flatness = _flatness(model, target, flatness_steps)
    except UsageError as error:  # no gradient in x, which not every attack needs
        failed.append(f"local flatness is not measured: {_first_line(error)}")
    else:
        if (wrong := int((~np.isfinite(flatness)).sum())) > 0:
            failed.append(
                f"local flatness is NaN or infinite for {wrong} of {len(flatness)} images"
            )
        if (flat := int((flatness == 0).sum())) > WITHOUT_SLOPE * len(flatness):
            failed.append(
                f"local flatness is exactly 0 for {flat} of {len(flatness)} images: no gradient "
                "to follow, as of large logits or steps; masking_report looks closer"
            )
    return Evaluation(
        eps=target.ball.eps,
        norm=f"{target.ball.p:g}",
        rows=tuple(rows),
        correct={**correct, "worst case": worst},
        flatness=flatness,
        flatness_steps=flatness_steps,
        metrics=measured,
        notes=(*failed, *_misled(correct), *_notes(to_run, together, results)),
    )


def _of_logits(logits: Tensor) -> list[str]:
    """What a reader has to know of a model that is broken, or says one thing of everything."""
    nan, infinite = (int(values.any(dim=1).sum()) for values in (logits.isnan(), logits.isinf()))
    if nan:
        return [
            f"the network returns NaN for {nan} of {len(logits)} images, which count as "
            "misclassified"
        ]
    if infinite:
        return [f"the network returns infinite logits for {infinite} of {len(logits)} images"]
    labels = logits.argmax(dim=1)
    if len(labels) >= FEWEST_FOR_COLLAPSE and bool((labels == labels[0]).all()):
        return [
            f"{CONSTANT} {int(labels[0])} for all {len(labels)} images: an accuracy under attack "
            "says nothing of a constant network"
        ]
    if bool((logits >= 0).all()) and bool((logits.sum(dim=1) - 1).abs().max() < SUM_SLACK):
        return [
            "the outputs are probabilities (each row sums to 1), which the cross-entropy takes for "
            "logits: flatness and attacks are those of another loss; remove the softmax"
        ]
    return []


def _misled(correct: Mapping[str, Array]) -> list[str]:
    """Attacks that break far more than PGD on the cross-entropy: its gradients hide something."""
    notes, followed = [], correct.get("PGD-40")
    for name, most in MISLED.items():
        if followed is None or len(correct.get(name, ())) != len(followed):
            continue
        if (share := float((followed & ~correct[name]).mean())) >= most:
            notes.append(
                f"{name} breaks {100 * share:.0f} % of the images that PGD-40 leaves right: the "
                "gradients mislead; masking_report looks closer"
            )
    return notes


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_shifted_labels(target: Target, clean: Tensor) -> list[str]:
    """Warn where the labels fit the model better after 1 is taken from each; the same as notes.

    Labels 1 to 10 of which 10 does not occur pass every check of their range. But so do the right
    labels of one class, judged by a model that takes it for another.
    """
    if int(target.y.min()) < 1:
        return []
    right = float(clean.double().mean())
    shifted = float(target.correct(target.x, target.y - 1).double().mean())
    if not (shifted > 0.5 and right < shifted / 2):
        return []
    note = (
        f"y has labels from {int(target.y.min())} to {int(target.y.max())}, with which "
        f"{100 * right:.0f} % of the samples are right, and {100 * shifted:.0f} % after 1 is "
        "taken from each; labels start at 0"
    )
    if target.processes.main:
        warnings.warn(note, stacklevel=6)  # the line that called `evaluate`, past its decorator
    return [note]


def _attack(
    attack: NamedAttack, target: Target, clean: Tensor, store: EvaluationStore | None
) -> tuple[Row, AttackResult]:
    """The row of an attack, from the store where it has finished before."""
    identity: Identity | None = None

    def kept() -> AttackResult | None:
        nonlocal identity
        if store is None:
            return None
        identity = store.identity_of(attack)
        return store.load(attack, identity)

    def keep(result: AttackResult) -> None:
        if store is not None and identity is not None:
            store.save(attack, identity, result)

    # Its identity before it runs: it may keep what it has seen.
    result = target.processes.by_main(kept)
    if result is None:
        result = run_attack(attack, target, clean)
        target.processes.by_main(partial(keep, result))
    sought = result.distance[~result.distance.isnan()]
    row = Row.of(
        attack.name,
        result.correct.numpy(),
        result.seconds,
        threat=attack.threat.label,
        distance=float(sought.median()) if attack.minimal and len(sought) else None,
        details={**result.details, **({"made_for": "another model"} if attack.transferred else {})},
    )
    return row, result


def _notes(
    to_run: Sequence[NamedAttack], together: Sequence[NamedAttack], results: dict[str, AttackResult]
) -> list[str]:
    """What a reader of the table has to know."""
    notes = []
    if len(together) < len(to_run):
        named = ", ".join(attack.name for attack in together) or "no attack"
        notes.append(f"worst case over {named}: all images, the threat model of the evaluation")
    if not any(attack.black_box for attack in together):
        notes.append(
            "no black-box attack is in the worst case: add 'Square' or 'autoattack' before "
            "believing it"
        )
    for attack in to_run:
        notes += [f"{attack.name}: {note}" for note in attack.notes]
        result = results[attack.name]
        outside = result.distance[result.distance.isfinite() & result.correct]
        if len(outside) and library_of(attack.parameters.get("object")) is None:
            notes.append(
                f"{attack.name}: {len(outside)} of its examples are taken for another class but "
                f"lie outside the ball, and do not count (the nearest at "
                f"{float(outside.min()):.3g}, eps is {attack.threat.eps:.3g})"
            )
    for name, result in results.items():
        notes += [f"{name}: {flag}" for flag in result.details.get("flags", [])]
    return notes


def _flatness(model: object, target: Target, steps: int) -> Array:
    # A classifier brings its own bounds and loss.
    adapter = target.adapter
    if isinstance(model, nn.Module):
        adapter = adapter_of(target.module, bounds=adapter.bounds)
    values: Array = flatness_with(
        adapter,
        *adapter.tensors(target.x.numpy(), target.y.numpy()),
        settings=LFRSettings(eps=target.ball.eps, norm=target.ball.p, steps=steps),
        batch_size=target.batch_size,
        seed=target.seed,
        processes=target.processes,
    ).numpy(force=True)
    return values


def _save(path: Path | None, target: Target, results: dict[str, AttackResult]) -> None:
    """All examples as arrays of one file: "x", "y", and one for each attack, by its name."""
    if path is None:
        return
    arrays: dict[str, Any] = {name: result.adversarial.numpy() for name, result in results.items()}
    content = io.BytesIO()
    np.savez_compressed(content, x=target.x.numpy(), y=target.y.numpy(), **arrays)
    write_atomically(path, content.getvalue())


def _clever_u(target: Target) -> float:
    """ART's mean CLEVER score (Weng et al. 2018), untargeted, over the first 10 images.

    An estimate of the distance to the nearest error, at most eps; large is robust.
    """
    from art.metrics import clever_u

    classifier, p = classifier_of(target), target.ball.p
    scores = [
        clever_u(
            classifier,
            image,
            nb_batches=CLEVER_BATCHES,
            batch_size=CLEVER_BATCH_SIZE,
            radius=target.ball.eps,
            norm=p if p == math.inf else int(p),
            verbose=False,
        )
        for image in target.x[:CLEVER_IMAGES].numpy()
    ]
    return float(np.mean(scores))


def _loss_sensitivity(target: Target) -> float:
    """ART's mean l2 norm of the loss gradient at x (Arpit et al. 2017)."""
    from art.metrics import loss_sensitivity

    classifier, x = classifier_of(target), target.x.numpy()
    y = np.eye(target.classes, dtype=np.float32)[target.y.numpy()]
    # One by one: a loss with reduction "mean" would divide each gradient by the batch.
    samples = (slice(i, i + 1) for i in range(len(x)))
    return float(np.mean([loss_sensitivity(classifier, x[one], y[one]) for one in samples]))


METRICS = {"clever_u": _clever_u, "loss_sensitivity": _loss_sensitivity}
