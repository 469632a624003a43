import numpy as np
import pytest
import torch
import torch.nn.functional as F
from art.defences.preprocessor import JpegCompression
from lfr_testing import classifier_around
from torch import nn

from art_lfr.check.model import check_model


class Attention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class SquareOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * gradient * x


class Custom(nn.Module):
    def forward(self, x):
        return SquareOnce.apply(x)


class Round(nn.Module):
    def forward(self, x):
        return torch.round(8 * x) / 8


class Detach(nn.Module):
    def forward(self, x):
        return x.detach()


class Noise(nn.Module):
    def forward(self, x):
        return x + 0.01 * torch.randn_like(x)


class FunctionalRelu(nn.Module):
    def forward(self, x):
        return F.relu(x)


def network(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def x():
    return torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def found(model, x, **keywords):
    return [(f.severity, f.layer) for f in check_model(model, x, **keywords)]


@pytest.mark.parametrize("estimator", ["finite-difference", "exact"])
def test_nothing_is_found_in_a_sound_network(x, estimator):
    model = network(nn.Conv2d(1, 1, 3, padding=1), nn.GELU())
    assert check_model(model, x, estimator=estimator) == []
    assert check_model(network(), x, estimator=estimator) == []  # linear: no kinks to miss


@pytest.mark.parametrize("layer", [Attention(), Custom()])
def test_layers_without_second_derivative_are_named(x, layer):
    model = network(nn.Conv2d(1, 1, 3, padding=1), layer)
    assert found(model, x) == []
    (finding,) = check_model(model, x, estimator="exact")
    assert (finding.severity, finding.layer) == ("error", f"1 ({type(layer).__name__})")
    assert "no second derivative" in finding.problem
    assert "finite-difference" in finding.fix


def test_an_operation_in_a_container_is_traced_to_the_container(x):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x):
            return SquareOnce.apply(self.inner(x))

    assert found(network(Block()), x, estimator="exact") == [("error", "0 (Block)")]


@pytest.mark.parametrize("layer", [nn.ReLU(inplace=True), FunctionalRelu(), nn.MaxPool2d(1, 1)])
def test_kinks_that_the_exact_hessian_misses(x, layer):
    model = network(nn.Conv2d(1, 1, 3, padding=1), layer)
    expected = [] if isinstance(layer, nn.MaxPool2d) else [("warning", "activations")]
    assert found(model, x, estimator="exact") == expected
    assert found(model, x) == []


@pytest.mark.parametrize("layer", [Round(), Detach()])
def test_layers_without_gradient_are_named(x, layer):
    assert found(network(layer), x) == [("error", f"0 ({type(layer).__name__})")]


def test_random_layers_are_named(x):
    model = network(nn.Dropout(0.1), nn.Dropout(0.0))
    assert found(model, x) == [("warning", "0 (Dropout)")]
    assert found(network(Noise()), x) == [("error", "0 (Noise)"), ("warning", "0 (Noise)")]


def test_batch_norm(x):
    model = network(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Tanh())
    assert found(model, x) == []
    assert found(model, x, batch_size=4) == [("warning", "1 (BatchNorm2d)")]
    assert found(model, x, batch_size=1) == [("error", "1 (BatchNorm2d)")]
    model[1] = nn.BatchNorm2d(1, track_running_stats=False)
    assert found(model, x) == [("error", "1 (BatchNorm2d)")]


@pytest.mark.parametrize(
    ("change", "bounds", "severity", "word"),
    [
        (lambda x: (255 * x).to(torch.uint8), (0, 1), "error", "integers"),
        (lambda x: 255 * x, (0, 1), "error", "x / 255"),
        (lambda x: 255 * x, None, "warning", "x / 255"),
        (lambda x: (x - 0.5) / 0.29, (0, 1), "error", "standardised"),
        (lambda x: (x - 0.5) / 0.29, None, "warning", "standardised"),
        (lambda x: x, (0, 255), "warning", "one unit"),
        (lambda x: x * torch.nan, (0, 1), "error", "NaN"),
    ],
)
def test_data_in_other_units(x, change, bounds, severity, word):
    finding = check_model(network(), change(x), bounds=bounds)[0]
    assert (finding.layer, finding.severity) == ("data", severity)
    assert word in finding.problem + finding.fix


def make_classifier(model, **keywords):
    keywords = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), **keywords}
    return classifier_around(model, (1, 8, 8), 10, **keywords)


def test_classifiers(x):
    model = network(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh(), nn.Dropout(0.5))
    assert found(make_classifier(model), x.numpy()) == [("warning", "2 (Dropout)")]
    assert found(make_classifier(model), None) == [("warning", "2 (Dropout)")]
    assert found(make_classifier(model, optimizer=None), None)[0] == (
        "error",
        "classifier.optimizer",
    )
    assert found(make_classifier(network(), clip_values=None), x) == [
        ("warning", "classifier.clip_values")
    ]
    blocking = JpegCompression(clip_values=(0, 1), channels_first=True)
    assert found(make_classifier(network(), preprocessing_defences=blocking), x) == [
        ("error", "preprocessing defence JpegCompression")
    ]
    scaled = make_classifier(network(), clip_values=(np.zeros((1, 8, 8)), np.ones((1, 8, 8))))
    assert found(scaled, 255 * x) == [("error", "data")]


class ByHand(nn.Module):
    """BatchNorm as repositories write it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("variance", torch.ones(1))

    def forward(self, x):
        return F.batch_norm(x, self.mean, self.variance, self.scale, None, self.training)


def frozen(layer):
    return layer.requires_grad_(False)


@pytest.mark.parametrize("make", [lambda: nn.BatchNorm2d(1), ByHand])
def test_batch_norm_that_is_half_frozen(x, make):
    name = make().__class__.__name__
    half = [("warning", f"0 ({name})")]
    for layer, expected in (
        (make(), []),
        (frozen(make()).eval(), []),
        (frozen(make()), half),
        (make().eval(), half),
    ):
        model = network(layer)
        model[1:].train()
        assert found(model, x) == expected
        model[0].train(layer.training)
        assert found(make_classifier(model), x.numpy()) == expected
    # `predict` leaves everything in eval mode: that is nobody's choice.
    assert found(network(make()).eval(), x) == []
    assert found(network(make()), x, batch_size=4) == half
    assert found(network(frozen(make()).eval()), x, batch_size=4) == []


LABELS = torch.arange(200) % 10


@pytest.mark.parametrize(
    ("y", "severity", "message"),
    [
        (LABELS, None, ""),
        (F.one_hot(LABELS), None, ""),
        (LABELS.tolist(), None, ""),
        (1 + LABELS, "error", "from 1 to 10"),
        (F.one_hot(1 + LABELS), "error", "from 1 to 10"),
        (torch.arange(200) % 12, "error", "from 0 to 11, and the model 10 classes"),
        (-LABELS, "error", "from -9 to 0"),
        (1 + torch.arange(200) % 9, "warning", "no label below 1"),
        (torch.arange(200) / 200, "error", "label 0.005"),
        (torch.full((200,), torch.nan), "error", "label nan"),
        (LABELS[:60], "error", "(60,)"),
    ],
)
def test_labels(x, y, severity, message):
    expected = [] if severity is None else [(severity, "labels")]
    for model in (network(), make_classifier(network())):
        findings = check_model(model, x.repeat(25, 1, 1, 1), y)
        assert [(f.severity, f.layer) for f in findings] == expected
        assert not expected or message in findings[0].problem


@pytest.mark.parametrize(
    ("last", "loss", "expected"),
    [
        (nn.Softmax(dim=1), nn.CrossEntropyLoss(), [("error", "outputs")]),
        (nn.LogSoftmax(dim=1), nn.CrossEntropyLoss(), []),
        (nn.Sigmoid(), nn.CrossEntropyLoss(), [("warning", "outputs")]),
        (nn.LogSoftmax(dim=1), nn.NLLLoss(), []),
        (nn.Softmax(dim=1), nn.NLLLoss(), [("error", "outputs")]),
        (nn.Identity(), nn.NLLLoss(), [("error", "outputs")]),
        (nn.Sigmoid(), nn.BCEWithLogitsLoss(), [("warning", "outputs")]),
        (nn.Identity(), nn.BCEWithLogitsLoss(), []),
    ],
)
def test_outputs_that_the_loss_takes_for_something_else(x, last, loss, expected):
    model = nn.Sequential(*network(), last)
    assert found(make_classifier(model, loss=loss), x) == expected
    if type(loss) is nn.CrossEntropyLoss:
        assert found(model, x) == expected


def test_weights_that_are_nan(x):
    model = network()
    nn.init.constant_(model[-1].weight, torch.nan)
    assert ("error", "model") in found(model, x)


def test_optimizers_that_cannot_train(x):
    model = network()
    for optimizer in (
        torch.optim.LBFGS(model.parameters()),
        [torch.optim.SGD(model.parameters(), lr=0.1)],
        torch.optim.SGD(network().parameters(), lr=0.1),
    ):
        assert found(make_classifier(model, optimizer=optimizer), x) == [
            ("error", "classifier.optimizer")
        ]


def test_no_sample_is_said(x):
    assert found(network(), None) == [("warning", "data")]


def test_a_network_that_does_not_run_is_said(x):
    (finding,) = check_model(network(), x[:, :, :4])
    assert (finding.layer, finding.severity) == ("model", "error")
    assert "does not run on x" in finding.problem


def test_everything_is_left_as_found(x):
    model = network(nn.BatchNorm2d(1), Noise(), nn.ReLU(inplace=True), nn.Dropout(0.5), Custom())
    model.train()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before, random = x.clone(), torch.get_rng_state()
    assert len(check_model(model, x, estimator="exact", batch_size=4)) >= 4
    assert [m.training for m in model] == [True, True, True, False, True, True, True]
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"estimator": "exakt"}, ValueError, "did you mean 'exact'"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"x": torch.zeros(0, 3)}, ValueError, "x has shape"),
        ({"model": 3}, TypeError, "model is a int"),
    ],
)
def test_bad_arguments(x, keywords, error, message):
    with pytest.raises(error, match=message):
        check_model(**{"model": network(), "x": x, **keywords})


@pytest.mark.filterwarnings("ignore:.*quantized tensor")
def test_data_that_cannot_be_looked_at():
    model = nn.Linear(4, 3)
    with pytest.raises(ValueError, match=r"x has shape \(3, 0\); allowed"):
        check_model(model, torch.zeros(3, 0))
    quantised = torch.quantize_per_tensor(torch.rand(3, 4), 0.1, 0, torch.quint8)
    with pytest.raises(TypeError, match=r"x is a tensor of .*quint8.* \.dequantize\(\)"):
        check_model(model, quantised)


def test_one_hot_rows_of_another_number_of_classes():
    y = torch.eye(11)[torch.arange(6)]
    (finding,) = check_model(nn.Linear(4, 10), torch.rand(6, 4), y)
    assert "one-hot rows of 11 classes, and the model 10 outputs" in finding.problem
    assert not check_model(nn.Linear(4, 11), torch.rand(6, 4), y)
    assert not check_model(nn.Linear(4, 11), torch.rand(6, 4), y.argmax(dim=1, keepdim=True))


def test_integer_logits_are_found():
    class Whole(nn.Linear):
        def forward(self, x):
            return super().forward(x).long()

    found = [f for f in check_model(Whole(4, 3), torch.rand(6, 4)) if f.layer == "outputs"]
    assert [f.problem for f in found] == [
        "they are of type torch.int64, through which no gradient passes"
    ]


@pytest.mark.parametrize(
    ("x", "fix"),
    [
        (torch.randint(2, (8, 4), dtype=torch.uint8), "x.astype('float32') with"),
        (torch.ones(8, 4, dtype=torch.bool), "x.astype('float32') with"),
        (torch.tensor([[0, 255, 3, 4]], dtype=torch.uint8), "x.astype('float32') / 255"),
    ],
)
def test_the_fix_for_integer_images_suits_their_range(x, fix):
    found = [f for f in check_model(nn.Linear(4, 3), x) if f.layer == "data"]
    assert found[0].fix.startswith(fix)
