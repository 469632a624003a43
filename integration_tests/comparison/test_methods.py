"""What all methods of a comparison share: learning rate, clipping, warm-up, units, mirroring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from art_lfr.cli.inputs import load_model
from art_lfr.comparison import training
from art_lfr.comparison.judging import Split, load_split
from art_lfr.comparison.methods import lfr_trainer, make_classifier
from art_lfr.comparison.plan import KINDS, Comparison, Run
from art_lfr.comparison.results import Results
from art_lfr.comparison.runner import run_all
from art_lfr.core.modes import parameters_of
from art_lfr.core.settings import LFRSettings

Plan = Callable[..., Comparison]
Factory = Callable[[str, int, int], nn.Module]


def method(kind: str, **settings: Any) -> dict[str, Any]:
    """A quick method of this kind."""
    steps = {} if kind in ("standard", "fbf") else {"steps": 2}
    return {"name": kind, "kind": kind, **steps, **settings}


def train(run: Run, split: Split, directory: Path) -> None:
    def network() -> nn.Module:
        return load_model("digits-cnn", None, 0, 10)

    training.train(run, network, split.x_train, split.y_train, 10, directory)


def test_the_learning_rate_is_the_same_for_all(
    tmp_path: Path, tiny_plan: Plan, make_network: Factory
) -> None:
    seen: dict[str, list[float]] = {}
    current = ""

    def record(optimizer: torch.optim.Optimizer, *_: object) -> None:
        seen.setdefault(current, []).append(optimizer.param_groups[0]["lr"])

    hook = register_optimizer_step_pre_hook(record)
    try:
        for current in ("pgd", "trades", "lfr"):
            run_all(tiny_plan(methods=[method(current)]), tmp_path, factory=make_network, tell=str)
    finally:
        hook.remove()
    assert len(set(seen["pgd"])) == 4  # two batches in each of two epochs
    assert seen["pgd"] == pytest.approx(seen["trades"])
    assert seen["pgd"] == pytest.approx(seen["lfr"])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_gradient_is_clipped_for_every_kind(tmp_path: Path, kind: str, tiny_plan: Plan) -> None:
    norms: list[float] = []

    def record(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if optimizer.param_groups[0]["momentum"]:  # not the optimizer that AWP moves its copy with
            gradients = [p.grad for p in parameters_of(optimizer) if p.grad is not None]
            norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    hook = register_optimizer_step_post_hook(record)
    try:
        for limit in (None, 0.01):
            comparison = tiny_plan(methods=[method(kind, max_grad_norm=limit)])
            train(next(iter(comparison.runs())), load_split(comparison, 0), tmp_path / f"{limit}")
    finally:
        hook.remove()
    free, clipped = norms[:4], norms[4:]  # two batches in each of two epochs
    assert min(free) > 0.1
    assert clipped == pytest.approx(4 * [0.01], rel=1e-3)


@pytest.mark.parametrize("kind", ["pgd", "trades", "awp"])
def test_warmup_raises_the_radius_as_that_of_lfr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tiny_plan: Plan
) -> None:
    seen: list[tuple[float, float]] = []
    generate = ProjectedGradientDescent.generate

    def record(self: ProjectedGradientDescent, *args: Any, **keywords: Any) -> Any:
        seen.append((self._attack.eps, self._attack.eps_step))
        return generate(self, *args, **keywords)

    monkeypatch.setattr(ProjectedGradientDescent, "generate", record)
    comparison = tiny_plan(methods=[method(kind, eps=2.0, warmup=1.5)])
    train(next(iter(comparison.runs())), load_split(comparison, 0), tmp_path)
    full = LFRSettings(eps=0.2)  # two batches an epoch
    expected = [full.warmed(epochs, 1.5).eps for epochs in (0.5, 1.0, 1.5, 2.0)]
    assert [eps for eps, _ in seen] == pytest.approx(expected)
    # Steps of 2.5 eps / 2, shorter while eps is smaller.
    assert [step for _, step in seen] == pytest.approx([1.25 * eps for eps in expected])


@pytest.mark.parametrize(
    ("penalty", "unit"),
    [("lfr", 0.1), ("lfr-held", 0.1), ("input-gradient", 0.1), ("cure", 1.0), ("llr", 1.0)],
)
def test_weights_of_gradient_norms_are_multiples_of_eps(
    tmp_path: Path, penalty: str, unit: float, tiny_plan: Plan
) -> None:
    methods = [method("lfr", penalty=penalty, lam=0.5, radius=0.25)]
    run = next(iter(tiny_plan(methods=methods).runs()))
    split = load_split(run.comparison, 0)
    classifier = make_classifier(load_model("digits-cnn", None, 0, 10), run, split.x_train, 10)
    settings = lfr_trainer(run, classifier)._loop.settings
    assert settings.lam == pytest.approx(0.5 * unit)
    assert settings.radius == pytest.approx(0.025)


def test_a_penalty_of_the_current_folder_and_none_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_plan: Plan, make_network: Factory
) -> None:
    (tmp_path / "mine_at_hand.py").write_text(
        "from art_lfr.penalties import LocalFlatness\nMINE = LocalFlatness(minus_weight=0.25)\n"
    )
    monkeypatch.chdir(tmp_path)
    comparison = tiny_plan(methods=[method("lfr", penalty="mine_at_hand:MINE")])
    run_all(comparison, tmp_path, factory=make_network, tell=str)
    (result,) = Results.read(comparison, tmp_path).runs
    assert result["settings"]["penalty"] == "mine_at_hand:MINE"
    # Refused before the method that comes first is trained.
    for settings, found in (
        ({"penalty": "mine_at_hand:YOURS"}, "penalty of 'lfr' is 'mine_at_hand:YOURS': module"),
        ({"penalty": "mine_at_hand:LocalFlatness"}, "a ABCMeta; allowed: an art_lfr.penalties.Pen"),
        ({"penalty": "lfr-hold"}, "did you mean 'lfr-held'"),
        ({"penalty": "cure"}, "lam is None with penalty 'cure'"),
        ({"penalty": "cure", "lam": 1, "autocast": True}, "autocast is True with penalty 'cure'"),
        ({"penalty": "llr", "lam": 1, "warm_start": True}, "warm_start is True with penalty 'llr'"),
    ):
        bad = tiny_plan(methods=[method("standard"), method("lfr", **settings)])
        with pytest.raises((ValueError, TypeError), match=found):
            run_all(bad, tmp_path / "bad", factory=make_network, tell=str)
        assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("kind", "settings", "found"),
    [
        ("lfr", {"estimator": "exakt"}, "estimator is 'exakt'"),
        ("lfr", {"batch_norm": "evil"}, "'method of' has settings .* batch_norm is 'evil'"),
        ("pgd", {"ratio": 2.0}, "'method of' has settings"),
    ],
)
def test_bad_values_are_found_before_the_first_training(
    tmp_path: Path,
    tiny_plan: Plan,
    make_network: Factory,
    kind: str,
    settings: dict[str, Any],
    found: str,
) -> None:
    bad = tiny_plan(methods=[method("standard"), {**method(kind, **settings), "name": "method of"}])
    with pytest.raises(ValueError, match=found):
        run_all(bad, tmp_path / "bad", factory=make_network, tell=str)
    assert not (tmp_path / "bad").exists()


def test_a_step_is_a_multiple_of_the_methods_own_eps(
    tmp_path: Path, tiny_plan: Plan, make_network: Factory
) -> None:
    (run,) = tiny_plan(methods=[method("lfr", eps=2.0, step=1.5, steps=3)]).runs()
    classifier = make_classifier(make_network("digits-cnn", 0, 10), run, np.zeros((1, 1, 8, 8)), 10)
    settings = lfr_trainer(run, classifier)._loop.settings
    assert settings.step_size == pytest.approx(1.5 * settings.eps / 3)
    assert settings.eps == pytest.approx(2 * run.comparison.eps)


def test_mirrored_images_are_all_seen_by_every_kind(
    tmp_path: Path, tiny_plan: Plan, make_network: Factory
) -> None:
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    hook = register_optimizer_step_pre_hook(count)
    try:
        for kind in ("standard", "pgd", "trades", "lfr"):
            steps = 0
            # 50 images in batches of 32: the second batch has 18
            run_all(
                tiny_plan(methods=[method(kind)], flip=True, train=50),
                tmp_path,
                factory=make_network,
                tell=str,
            )
            assert steps == 2 * 2, kind
    finally:
        hook.remove()
