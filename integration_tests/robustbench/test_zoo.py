"""Zoo models and user modules as ART classifiers that LFR fine-tunes. Nothing is downloaded."""

import numpy as np
import pytest
import torch
from torch import nn

try:
    import art_lfr.robustbench  # noqa: F401
except ImportError as error:
    pytest.skip(f"RobustBench cannot be imported here: {error}", allow_module_level=True)

from robustbench.model_zoo import model_dicts
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
from robustbench.utils import load_model

from art_lfr import AdversarialTrainerLFRPyTorch
from art_lfr.robustbench import to_art

NAME = "Sehwag2021Proxy_R18"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A checkpoint of the right name with random weights, where RobustBench would have put it."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    model = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf][NAME]["model"]()
    path = folder / "cifar10" / "Linf" / f"{NAME}.pt"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": model.state_dict()}, path)
    return folder


def images(count=4, shape=(3, 32, 32)):
    return np.random.default_rng(0).random((count, *shape)).astype(np.float32)


def test_a_zoo_model_by_name_is_fine_tuned(model_dir):
    classifier = to_art(NAME, model_dir=model_dir)
    plain = load_model(NAME, model_dir, "cifar10", "Linf")
    x = images()
    with torch.no_grad():
        expected = plain(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(classifier.predict(x), expected, rtol=1e-4, atol=1e-5)
    assert tuple(classifier.clip_values) == (0.0, 1.0)
    before = [p.detach().clone() for p in classifier.model.parameters()]
    trainer = AdversarialTrainerLFRPyTorch(classifier, eps=8 / 255, max_iter=1, warmup_epochs=0)
    trainer.fit(x, np.arange(4), nb_epochs=1, batch_size=4)
    changed = [
        not torch.equal(a, b) for a, b in zip(before, classifier.model.parameters(), strict=True)
    ]
    assert all(changed)
    assert np.isfinite(classifier.predict(x)).all()


def test_a_new_head(model_dir):
    classifier = to_art(NAME, model_dir=model_dir, new_classes=7, seed=3)
    again = to_art(NAME, model_dir=model_dir, new_classes=7, seed=3)
    other = to_art(NAME, model_dir=model_dir, new_classes=7, seed=4)
    x = images()
    assert classifier.nb_classes == 7
    assert classifier.predict(x).shape == (4, 7)
    np.testing.assert_array_equal(classifier.predict(x), again.predict(x))
    assert not np.allclose(classifier.predict(x), other.predict(x))
    # The optimizer has the fresh layer's parameters, not the old one's.
    own = {id(p) for p in classifier.model.parameters()}
    assert {id(p) for g in classifier.optimizer.param_groups for p in g["params"]} == own


def test_a_users_module():
    state = torch.get_rng_state()
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    model.train()
    torch.set_rng_state(state)
    classifier = to_art(model, input_shape=(3, 8, 8), new_classes=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert classifier.nb_classes == 3
    assert classifier.model[1].out_features == 3
    imagenet = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    assert to_art(imagenet, dataset="imagenet").input_shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("Carmon2019Unlabelled",), ValueError, "did you mean 'Carmon2019Unlabeled'"),
        ((3,), TypeError, "model_or_name is a int"),
        ((nn.Flatten(),), ValueError, "no parameter that requires gradients"),
    ],
)
def test_bad_models(arguments, error, message):
    with pytest.raises(error, match=message):
        to_art(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "mnist"}, "dataset is 'mnist'"),
        ({"threat_model": "l2"}, "threat_model is 'l2'"),
        ({"new_classes": 1}, "new_classes is 1"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"weight_decay": -1}, "weight_decay is -1"),
    ],
)
def test_bad_arguments(change, message):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(ValueError, match=message):
        to_art(model, **change)


def test_a_head_that_cannot_be_replaced():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5), nn.Softmax(dim=1))
    with pytest.raises(ValueError, match="new_classes needs a model whose logits"):
        to_art(model, new_classes=3)
