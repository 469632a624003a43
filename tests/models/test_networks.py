"""The built-in networks: shapes, seeds, architecture, activations, normalisation inside."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from art_lfr import lfr_loss
from art_lfr.check.model import check_model
from art_lfr.models import (
    BUILT_IN,
    CIFAR10_MEAN,
    CIFAR10_STD,
    Normalise,
    narrow_resnet,
    paper_cnn,
    preact_resnet_18,
    resnet_20,
)

SHAPES = {
    "digits-cnn": (1, 8, 8),
    "small-cnn": (1, 28, 28),
    "paper-cnn": (1, 28, 28),
    "resnet-20": (3, 32, 32),
    "preact-resnet-18": (3, 32, 32),
    "narrow-resnet": (3, 32, 32),
}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def layers(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


def test_every_built_in_network_has_a_shape_here() -> None:
    assert SHAPES.keys() == BUILT_IN.keys()


@pytest.mark.parametrize("name", BUILT_IN)
def test_shapes_seeds_and_the_global_state(name: str) -> None:
    factory, shape = BUILT_IN[name], SHAPES[name]
    before = torch.get_rng_state()
    first, again, other = factory(), factory(0), factory(1)
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.rand(2, *shape)
    first.eval(), again.eval(), other.eval()
    assert first(x).shape == (2, 10)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    assert factory(classes=7)(x).shape == (2, 7)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_check_finds_no_fault(name: str) -> None:
    findings = check_model(BUILT_IN[name](), torch.rand(4, *SHAPES[name]))
    assert [finding for finding in findings if finding.severity == "error"] == []


@pytest.mark.parametrize("name", BUILT_IN)
def test_other_activations(name: str) -> None:
    factory = BUILT_IN[name]
    count = len(layers(factory(), nn.ReLU))
    smooth = factory(activation=nn.SiLU)
    assert len(layers(smooth, nn.ReLU)) == 0
    assert len(layers(smooth, nn.SiLU)) == count > 0
    # Weights do not depend on the activation, and a maker with settings is as good as a class.
    sharp = factory(activation=lambda: nn.Softplus(beta=10))
    assert all(
        torch.equal(value, sharp.state_dict()[key]) for key, value in smooth.state_dict().items()
    )
    # The residual networks take any size; small images are fast.
    shape = (3, 8, 8) if "resnet" in name else SHAPES[name]
    x, y = torch.rand(2, *shape), torch.tensor([0, 1])
    lfr_loss(sharp.eval(), x, y, eps=0.01, estimator="exact").total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in sharp.parameters())


def test_the_papers_network() -> None:
    network = paper_cnn()
    convolutions = layers(network, nn.Conv2d)
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (1, 32),
        (32, 32),
        (32, 64),
        (64, 64),
    ]
    assert all(c.kernel_size == (3, 3) and c.padding == (0, 0) for c in convolutions)
    assert [layer.out_features for layer in layers(network, nn.Linear)] == [200, 200, 10]
    kinds = [type(module).__name__ for module in network]
    block = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"]
    assert kinds[:10] == [*block, *block]


def test_depths_and_sizes() -> None:
    def weighted(network: nn.Module) -> int:
        shortcuts = [c for c in layers(network, nn.Conv2d) if c.kernel_size == (1, 1)]
        return len(layers(network, (nn.Conv2d, nn.Linear))) - len(shortcuts)

    assert weighted(resnet_20()) == 20
    assert weighted(preact_resnet_18()) == 18
    assert weighted(narrow_resnet()) == 8
    # Counted from the papers' tables: convolutions and BatchNorm of the blocks, head and stem.
    widths, total = (16, 32, 64), 3 * 9 * 16 + 2 * 16
    for before, width in zip((16, *widths), widths, strict=False):
        total += before * width * 9 + 5 * width * width * 9 + 6 * 2 * width
        total += 0 if before == width else before * width + 2 * width
    assert parameters(resnet_20()) == total + 64 * 10 + 10


def test_kaiming_weights() -> None:
    for network in (resnet_20(), preact_resnet_18()):
        for module in layers(network, nn.Conv2d):
            expected = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.12)


class OldBlock(nn.Module):
    """The block of the narrow ResNet as the first experiments had it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


def test_the_narrow_resnet_is_that_of_the_first_experiments() -> None:
    torch.manual_seed(5)
    old = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        OldBlock(16, 16, 1),
        OldBlock(16, 32, 2),
        OldBlock(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    network = narrow_resnet(5)
    assert list(network.state_dict()) == list(old.state_dict())
    x = torch.rand(4, 3, 32, 32)
    assert torch.equal(network(x), old(x))
    assert torch.equal(network.eval()(x), old.eval()(x))


@pytest.mark.parametrize("factory", [resnet_20, preact_resnet_18, narrow_resnet])
def test_normalisation_inside(factory: Callable[..., nn.Module]) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.4, 0.3)
    with_it, without = factory(mean=mean, std=std).eval(), factory(mean=None, std=None).eval()
    x = torch.rand(2, 3, 32, 32)
    channels = [(x[:, c] - mean[c]) / std[c] for c in range(3)]
    torch.testing.assert_close(with_it(x), without(torch.stack(channels, dim=1)))
    # The numbers go with the weights.
    other = factory(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).eval()
    other.load_state_dict(with_it.state_dict())
    assert torch.equal(other(x), with_it(x))
    with pytest.raises(ValueError, match="both or neither None"):
        factory(mean=mean, std=None)


def test_the_default_normalisation() -> None:
    for factory in (resnet_20, preact_resnet_18):
        (layer,) = layers(factory(), Normalise)
        assert layer.mean.flatten().tolist() == pytest.approx(CIFAR10_MEAN)
        assert layer.std.flatten().tolist() == pytest.approx(CIFAR10_STD)
    assert layers(narrow_resnet(), Normalise) == []


@pytest.mark.parametrize("bad", [((0.5,), ()), ((), ()), ((0.5,), (0.0,)), ((float("nan"),), (1,))])
def test_bad_numbers_for_the_normalisation(bad: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"mean is .* and std is .*; allowed"):
        Normalise(*bad)


def test_one_channel_is_not_stretched_to_three() -> None:
    with pytest.raises(RuntimeError, match=r"images of 3 channels.*\(2, 1, 32, 32\)"):
        resnet_20()(torch.rand(2, 1, 32, 32))


@pytest.mark.parametrize("name", BUILT_IN)
def test_bad_arguments(name: str) -> None:
    with pytest.raises(ValueError, match="seed is -1; allowed: an integer >= 0"):
        BUILT_IN[name](-1)
    with pytest.raises(ValueError, match="classes is 1; allowed: an integer >= 2"):
        BUILT_IN[name](classes=1)
    with pytest.raises(TypeError, match=r"seed is 0\.5"):
        BUILT_IN[name](0.5)  # type: ignore[arg-type]
    assert inspect.signature(BUILT_IN[name]).parameters["seed"].default == 0
