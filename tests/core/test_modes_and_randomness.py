"""What a call must leave as it was: modes, flags, buffers, inputs, global generators."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from art_lfr.core.modes import mode
from art_lfr.core.randomness import RandomState, preserved_random_state, seed_global_generators
from art_lfr.loss import LFRLoss, lfr_loss
from art_lfr.measure import local_flatness

ESTIMATORS = ("finite-difference", "exact")
Batch = Callable[..., tuple[Tensor, Tensor]]


class Bomb(nn.Module):
    """Raises in its `fuse`-th forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.fuse = 10**9

    def forward(self, x: Tensor) -> Tensor:
        self.fuse -= 1
        if self.fuse == 0:
            raise KeyboardInterrupt("bomb")
        return x


def network() -> nn.Sequential:
    """One of everything that has a state; some layers in eval mode, some parameters frozen."""
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1),
        nn.BatchNorm1d(4),
        nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
        nn.Tanh(),
        nn.BatchNorm1d(4, momentum=None),
        nn.Dropout(0.2),
        nn.BatchNorm1d(4),
        Bomb(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(24, 3)),
    ).double()
    model[6].eval()
    model[0].weight.requires_grad_(False)
    return model


def flags(model: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_norm", ["eval", "train"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_buffers_move_as_by_one_plain_forward(
    batch: Batch, estimator: str, batch_norm: str, training: bool
) -> None:
    model, (x, y) = network(), batch(5, 2, 6)
    if not training:
        model.eval()
    plain, before = copy.deepcopy(model), buffers(model)
    held = dict(model.named_buffers())
    torch.manual_seed(3)
    plain(x)
    torch.manual_seed(3)
    terms = lfr_loss(model, x, y, eps=0.1, steps=2, estimator=estimator, batch_norm=batch_norm)
    for _ in range(2):
        after = buffers(model)
        assert after.keys() == before.keys()
        assert all(torch.equal(after[n], b) for n, b in plain.named_buffers())
        assert any(not torch.equal(after[n], before[n]) for n in before) == training
        terms.total.backward(retain_graph=True)
    # The very tensors, which an optimizer's or a user's reference may point to.
    assert all(buffer is held[name] for name, buffer in model.named_buffers())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_modes_flags_and_inputs_are_left_alone(
    batch: Batch, estimator: str, device: torch.device
) -> None:
    model, (x, y) = network(), batch(5, 2, 6)
    before, copies = flags(model), (x.clone(), y.clone())
    x.requires_grad_(True)
    lfr_loss(model, x, y, eps=0.1, steps=2, estimator=estimator).total.backward()
    assert flags(model) == before
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])
    assert x.grad is None
    assert model[0].weight.grad is None
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    x = x.detach()
    model.zero_grad()
    state, held = RandomState.capture(device), buffers(model)
    local_flatness(model, x, y, eps=0.1, steps=2, estimator=estimator, restarts=2)
    assert flags(model) == before
    assert torch.equal(x, copies[0])
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(held[n], b) for n, b in model.named_buffers())
    assert not state.differs_from(RandomState.capture(device))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_an_exception_in_any_pass_leaves_all_as_it_was(
    batch: Batch, estimator: str, batch_norm: str, device: torch.device
) -> None:
    model, (x, y) = network(), batch(5, 2, 6)
    bomb, before = model[7], flags(model)
    loss = LFRLoss(eps=0.1, steps=2, estimator=estimator, batch_norm=batch_norm)
    bomb.fuse = 10**9
    loss(model, x, y)
    passes = 10**9 - bomb.fuse
    # An upper end and the point itself in both steps, and the last point.
    ascent = 2 + 2 + 1 if estimator == "finite-difference" else 3
    assert passes == ascent + (4 if estimator == "finite-difference" else 2)
    for fuse in range(1, passes + 1):
        bomb.fuse = 10**9
        forward_only, held = copy.deepcopy(model), dict(model.named_buffers())
        torch.manual_seed(fuse)
        if fuse > ascent + 1:
            forward_only(x)
        expected = RandomState.capture(device), buffers(forward_only)
        torch.manual_seed(fuse)
        bomb.fuse = fuse
        with pytest.raises(KeyboardInterrupt):
            loss(model, x, y)
        assert flags(model) == before
        assert all(buffer is held[name] for name, buffer in model.named_buffers())
        if fuse != ascent + 1:  # the clean forward itself, which does as it would without LFR
            assert not expected[0].differs_from(RandomState.capture(device))
            assert all(torch.equal(expected[1][n], b) for n, b in model.named_buffers())


def test_generators_of_a_model_that_is_random_in_eval_mode_too(
    batch: Batch, device: torch.device
) -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x) + float(np.random.rand()) + random.random()

    x, y = batch(4, 6)
    model = nn.Sequential(Noise(), nn.Linear(6, 3).double())
    before = RandomState.capture(device)
    local_flatness(model, x, y, eps=0.1)
    assert not before.differs_from(RandomState.capture(device))
    model(x)
    after_one_forward = RandomState.capture(device)
    before.restore()
    lfr_loss(model, x, y, eps=0.1)
    assert not after_one_forward.differs_from(RandomState.capture(device))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_works_without_grad_mode(batch: Batch, estimator: str) -> None:
    model, (x, y) = network().eval(), batch(5, 2, 6)
    keywords: dict[str, Any] = {"eps": 0.1, "steps": 2, "estimator": estimator}
    expected = local_flatness(model, x, y, **keywords), lfr_loss(model, x, y, **keywords).total
    with torch.no_grad():
        assert torch.equal(local_flatness(model, x, y, **keywords), expected[0])
        torch.testing.assert_close(lfr_loss(model, x, y, **keywords).total, expected[1])
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_ascent_runs_in_eval_mode_without_parameter_gradients(batch: Batch, estimator: str) -> None:
    model, (x, y) = network(), batch(5, 2, 6)
    seen: list[tuple[bool, bool]] = []
    model.register_forward_pre_hook(
        lambda m, _: seen.append((m.training, any(p.requires_grad for p in m.parameters())))
    )
    local_flatness(model, x, y, eps=0.1, steps=2, estimator=estimator)
    ascent = len(seen)
    assert seen == [(False, False)] * ascent
    lfr_loss(model, x, y, eps=0.1, steps=2, estimator=estimator, renew_every=1)
    assert seen[ascent : 2 * ascent] == [(False, False)] * ascent
    # clean, and the penalty's; the dual vector's gradient needs none of the parameters'.
    rest = [(True, True), (True, False), (True, True), (True, True)]
    assert seen[2 * ascent :] == (rest if estimator == "finite-difference" else rest[-2:])


def test_first_layers_that_work_in_place(batch: Batch) -> None:
    x, y = batch(4, 6)
    torch.manual_seed(0)
    linear = nn.Linear(6, 3).double()
    values = []
    for inplace in (False, True):
        model = nn.Sequential(nn.Dropout(0.5), nn.LeakyReLU(0.1, inplace=inplace), linear).eval()
        values.append([local_flatness(model, x.clone(), y, eps=0.1, estimator=e)
                       for e in ESTIMATORS])  # fmt: skip
    torch.testing.assert_close(values[0], values[1])


def test_mode_goes_through_the_train_method() -> None:
    class Merging(nn.Linear):
        """As LoRA layers do, folds its update into the weights when it leaves train mode."""

        merged = False

        def train(self, mode: bool = True) -> Merging:
            self.merged = not mode
            return super().train(mode)

    model = nn.Sequential(Merging(2, 2), nn.Dropout())
    model[1].eval()
    with mode(model, training=False):
        assert model[0].merged
    assert not model[0].merged
    assert [m.training for m in model.modules()] == [True, True, False]


@pytest.fixture
def _restored_generators(device: torch.device) -> Iterator[None]:
    with preserved_random_state(device):
        yield


@pytest.mark.usefixtures("_restored_generators")
def test_random_states_survive_a_checkpoint(tmp_path: Any, device: torch.device) -> None:
    seed_global_generators(2**40 + 3)
    np.random.randn(1)  # leaves a second normal number in store
    random.gauss(0, 1)
    state = RandomState.capture(device)

    def draw() -> tuple[float, ...]:
        return float(torch.rand(())), np.random.randn(), random.gauss(0, 1), random.random()

    drawn = draw()
    assert state.differs_from(RandomState.capture(device))
    torch.save(state.to_plain(), tmp_path / "state")
    plain = torch.load(tmp_path / "state", weights_only=True)
    RandomState.from_plain(plain, device).restore()
    assert not state.differs_from(RandomState.capture(device))
    assert draw() == drawn
    state.restore()
    for touch in (lambda: torch.rand(1), np.random.rand, random.random):
        before = RandomState.capture(device)
        touch()
        assert before.differs_from(RandomState.capture(device))
